"""The HTTP service: API v1, WeChat's callbacks, and the mini-program's door.

``routes.TABLE`` says what there is; the router, the checks and the OpenAPI document are all made
from it. ``server.run`` is one process of it.
"""
