"""The pair as a server: OpenAI-compatible routes over an orchestrator that shares the device.

`settings` says what is served and within which limits, `sharing` what a strategy means here,
`engine` and `lane` who works when, `tenant` how one tenant is asked (a worker each), `admission`
what fits, `uploads` how audio from outside is decoded; `app`, `wire`, `security` and `metrics` are
HTTP. Only `app`, `metrics` and `run` need the extra `serve`.
"""
