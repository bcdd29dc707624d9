#!/bin/sh
# The transcript of one sound file, as text, json, verbose_json, srt or vtt.
#   examples/transcribe.sh FILE [FORMAT]
set -eu
url=${HYBRIDLAB_URL:-http://127.0.0.1:8000}
curl -sS --fail-with-body "$url/v1/audio/transcriptions" \
  -H "Authorization: Bearer ${HYBRIDLAB_TOKEN:-none}" \
  -F "file=@$1" -F model=whisper-1 -F "response_format=${2:-text}"
