"""What requests and answers look like: OpenAI's shapes, and the server's own for both models in one
call. The routes answer with these models, from which `/openapi.json` is generated."""
