"""The HTTP server (`anyrec[serve]`): the live model behind a JSON API.

Modules:

- `app`: the application with all routes.
- `lists`, `records`, `admin`: the routes of lists and scores, of items, users and events, and of the server itself.
- `pictures`, `catalogue`, `runs`, `page`: the routes of thumbnails, of what the page shows, of training runs, and the
  files of the page.
- `watch`: the page of a training run while it trains.
- `follow`: other versions that are saved in the model's folder.
- `host`: what every route works with.
- `document`: the OpenAPI document, as precise as limits and model allow.
- `api_page`: the page `/docs`, which describes the API.
- `body`: the body of a request, as strict JSON.
- `messages`: what requests and answers contain.
- `answers`: what answers contain that are made without these messages.
- `problems`: errors as problem documents (RFC 9457).
- `places`: where a fault is in a request.
- `tags`: answers that a browser keeps.
- `limits`: what requests may contain on this server.
- `origin`: requests that other websites have a browser send.
- `guard`: keys, request ids, security headers and logs, before and after every route.
- `upload`: pictures that requests bring.
- `activity`: what the server did lately.
- `keys`: API keys.
- `batcher`: the threads that run the model, and requests that are scored together.
- `metrics`: the figures at `/metrics`.
- `starting`: the answers while the model is loaded.
- `run`: the server's process.
"""
