# What every host of a queued resource runs at each boot, as root, behind lines that set NAME, PROJECT, ZONE,
# IMAGE, SLICES, LOGS (where the log is copied to; "": nowhere), COMMAND and VARIABLES.
set -u
STATE=/var/lib/bltjax PAUSE=15
METADATA=http://metadata.google.internal/computeMetadata/v1/instance
mkdir -p "$STATE"
exec >>"$STATE/log" 2>&1

metadata() { curl -sf -H 'Metadata-Flavor: Google' "$METADATA/$1"; }
say() { echo "$(date -u +%FT%TZ) $*"; }
keep_log() { [ -z "$LOGS" ] || gcloud storage cp "$STATE/log" "$LOGS/$(hostname).log" --quiet; }

# One gang a slice: two on the same chips would end one another for ever.
exec 9>"$STATE/lock"
flock 9
if [ -e "$STATE/$NAME.ended" ]; then
  say "$NAME has ended with $(cat "$STATE/$NAME.ended")"
  exit 0
fi

child=0 stopping=
stop() { stopping=1; [ "$child" = 0 ] || kill -TERM "$child"; }
trap stop TERM INT HUP

# Who is who among slices is said by the metadata of this one. What an earlier slice left would make processes
# wait for hosts that are gone.
for variable in "${!MEGASCALE_@}"; do unset "$variable"; done
slices() {
  metadata attributes/tpu-env | sed -n "s/^ *\(MEGASCALE_[A-Z_]*\): *'\{0,1\}\([^']*\)'\{0,1\} *$/\1=\2/p"
}
if [ "$SLICES" -gt 1 ]; then
  until found=$(slices) && grep -qx "MEGASCALE_NUM_SLICES=$SLICES" <<<"$found"; do
    [ -z "$stopping" ] || exit 0
    say "the metadata does not name $SLICES slices yet"
    sleep "$PAUSE"
  done
  while IFS= read -r line; do VARIABLES+=("$line"); done <<<"$found"
fi

flags=()
for variable in ${VARIABLES[@]+"${VARIABLES[@]}"}; do flags+=(--env "$variable"); done
case "$IMAGE" in
  *.pkg.dev/* | *gcr.io/*) gcloud auth configure-docker "${IMAGE%%/*}" --quiet ;;
esac

job() { # the job once; its exit status
  docker rm --force bltjax >/dev/null 2>&1 # of a script that was killed
  docker run --rm --name bltjax --privileged --net host --ulimit memlock=-1 --stop-timeout 120 \
    ${flags[@]+"${flags[@]}"} "$IMAGE" "${COMMAND[@]}" 9>&- &
  child=$!
  [ -z "$stopping" ] || kill -TERM "$child"
  wait "$child"
  code=$?
  while kill -0 "$child" 2>/dev/null; do # a signal to this script ended the wait
    wait "$child"
    code=$?
  done
  child=0
  return "$code"
}

attempt=0 unstarted=0
while [ -z "$stopping" ]; do
  attempt=$((attempt + 1))
  say "attempt $attempt"
  job
  code=$?
  say "attempt $attempt ended with $code"
  keep_log
  [ -z "$stopping" ] || break # the machine goes away; the job goes on elsewhere, or here at the next boot
  # 42: saved; 128 and above: ended by a signal; 125: docker could not start it, which may pass
  if [ "$code" = 125 ]; then unstarted=$((unstarted + 1)); else unstarted=0; fi
  if [ "$code" != 42 ] && [ "$code" -lt 128 ] && { [ "$code" != 125 ] || [ "$unstarted" -ge 20 ]; }; then break; fi
  sleep "$PAUSE" &
  wait $!
done
[ -z "$stopping" ] || exit 0

echo "$code" >"$STATE/$NAME.ended"
# Gives the slices back, where the service account may; else the next `bltjax launch` does. After a success one
# host does it for all, once they have had time to end too.
first() { [ "$(metadata attributes/agent-worker-number)" = 0 ] && ! grep -q '^MEGASCALE_SLICE_ID=[1-9]' <<<"${found-}"; }
if [ "$code" != 0 ] || first; then
  sleep "$((PAUSE * 4))"
  gcloud compute tpus queued-resources delete "$NAME" --project "$PROJECT" --zone "$ZONE" --force --async --quiet ||
    say "not allowed to delete $NAME"
fi
exit "$code"
