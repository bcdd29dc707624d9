#!/bin/sh
# Transcript and answers of one sound file, each printed as soon as it is there.
#   examples/hybrid.sh FILE QUESTION [QUESTION ...]
set -eu
url=${HYBRIDLAB_URL:-http://127.0.0.1:8000}
file=$1
shift
for question in "$@"; do
  set -- "$@" --form-string "question=$question"
  shift
done
curl -sS --fail-with-body --no-buffer "$url/v1/hybrid" \
  -H "Authorization: Bearer ${HYBRIDLAB_TOKEN:-none}" \
  -F "file=@$file" -F stream=true "$@"
