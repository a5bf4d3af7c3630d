"""The HTTP server (`anyrec[serve]`): the live model behind a JSON API.

Modules:

- `app`: the application with all routes.
- `lists`, `records`, `admin`: the routes of lists and scores, of items, users and events, and of the server itself.
- `host`: what every route works with.
- `messages`: what requests and answers contain.
- `problems`: errors as problem documents (RFC 9457).
- `guard`: limits, keys, request ids, security headers and logs, before and after every route.
- `keys`: API keys.
- `batcher`: the threads that run the model, and requests that are scored together.
- `metrics`: the figures at `/metrics`.
- `run`: the server's process.
"""
