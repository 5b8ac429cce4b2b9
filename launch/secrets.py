"""Runs a command with variables whose values are in Google's Secret Manager. Machines of GKE and TPU VMs run
it before start.py, so that no manifest, script or command line has the values.

    python -m bltjax.launch.secrets PROJECT NAME,NAME COMMAND...

A variable's secret is called as the variable is. The machine's service account must be allowed to read it
(roles/secretmanager.secretAccessor)."""

import base64
import json
import os
import sys
import time
import urllib.error
import urllib.request

METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"
STORE = "https://secretmanager.googleapis.com/v1"
SECONDS = 30  # that one answer may take
TRIES, PAUSE = 10, 15
REFUSED = (400, 401, 403, 404)  # what no second try changes


def prefix(python: str, project: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """What stands before a command that wants these variables; () where it wants none."""
    return (python, "-m", "bltjax.launch.secrets", project, ",".join(names)) if names else ()


def values(project: str, names: list[str], metadata: str = METADATA, store: str = STORE) -> dict[str, str]:
    """{name: its newest value}. PermissionError for one that is not there or not for us; other OSErrors and
    ValueError where nothing answers as it should."""
    token = _json(metadata, "Metadata-Flavor", "Google")["access_token"]
    found = {}
    for name in names:
        where = f"{store}/projects/{project}/secrets/{name}/versions/latest:access"
        try:
            answer = _json(where, "Authorization", f"Bearer {token}")
        except urllib.error.HTTPError as error:
            kind = PermissionError if error.code in REFUSED else OSError
            raise kind(f"{name}: Secret Manager of {project} says {error.code} {error.reason}") from None
        found[name] = base64.b64decode(answer["payload"]["data"]).decode()
    return found


def _json(where: str, header: str, value: str) -> dict:
    request = urllib.request.Request(where, headers={header: value})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer)


def main(argv=None) -> int:
    project, names, *command = sys.argv[1:] if argv is None else argv
    for attempt in range(TRIES):
        try:
            found = values(project, names.split(","))
            break
        except (OSError, ValueError, KeyError) as error:
            print(f"bltjax: no secrets: {error}", file=sys.stderr, flush=True)
            refused = isinstance(error, PermissionError)
        if refused or attempt + 1 == TRIES:
            return 2 if refused else 1
        time.sleep(PAUSE)
    # the same process, so that signals reach the command
    os.execvpe(command[0], command, {**os.environ, **found})


if __name__ == "__main__":
    sys.exit(main())
