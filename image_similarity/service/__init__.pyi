from .app import create_app
from .client import Client

__all__ = [
    "Client",
    "create_app",
]
