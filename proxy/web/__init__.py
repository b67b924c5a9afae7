"""The HTTP server of a process: /metrics, /healthz, /readyz."""

from proxy.web.server import HttpServer, serve_http

__all__ = ["HttpServer", "serve_http"]
