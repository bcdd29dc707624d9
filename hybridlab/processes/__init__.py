"""Work in fresh processes: the server that forks cases, workers that answer calls, MPS."""
