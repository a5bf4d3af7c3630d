"""The page in the browser: HTML, styles, scripts and pictures, without any Python.

- `index.html`, `style.css`: the frame of all sections and its looks.
- `main.js`: start, sections and keys; `people.js`, `items.js`, `map.js`, `data.js`, `training.js`, `live.js`: a section
  each; `api.js`, `dom.js`, `cards.js`, `form.js`, `charts.js`: what they share.
- `uplot.js`, `uplot.css`: uPlot, which draws the curves (`LICENSE.uplot`).
"""
