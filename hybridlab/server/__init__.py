"""`hybridlab serve`: both models over HTTP, as OpenAI's API and as one call for both.

A request goes from its route to the `engine`, which has a `scheduler` for each model; that has a
`model_client`, which is a worker process or another server, kept alive by its `supervisor`. What
fits is the planner's and `memory`'s to say (`admission`). Uploads are decoded in processes of their
own (`audio_decoder`). `settings` has every option.
"""
