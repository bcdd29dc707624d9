"""One router for each resource; they answer with the models of `hybridlab.server.schemas`."""
