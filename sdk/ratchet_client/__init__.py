"""Posts a chatbot's turns and feedback to Ratchet, in the background: never blocks and never raises into its host."""

from .client import AsyncClient, Client
from .items import Problem, __version__

__all__ = ["AsyncClient", "Client", "Problem", "__version__"]
