"""The page in the browser: HTML, styles, scripts and pictures, without any Python.

- `index.html`: the frame of all sections. `style.css`: colours, layout, controls; `sections.css`: what sections add.
- `main.js`: start, and which section is shown. `address.js`: what the address says, so that links and "back" work.
- People: `people.js` (who), `form.js`, `choose.js` (a new person's features), `list.js` (the list), `reasons.js` (why).
- Items: `items.js` (lists, one item), `search.js`, `map.js` and `markers.js` (the map).
- Data: `data.js`. Training: `training.js`, `report.js`. Live: `live.js`.
- Shared: `api.js` and `json.js` (requests, keys, ids of 19 digits), `dom.js` (elements, texts, focus), `cards.js`
  (items and people), `charts.js`.
- `uplot.js`, `uplot.css`: uPlot, which draws the curves (`LICENSE.uplot`).
"""
