"""Reads a PAT that patrol keeps fresh at the start of a job, hands it to the job's later
steps as a secret variable, and confirms that this version is in use.

For Azure Pipelines (azure-pipelines.yml) and GitHub Actions (action.yml) beside this file.
It needs Python 3.9 and the Azure CLI, signed in as an identity that may read the secret and,
to confirm, send to the queue pat-confirmations. Nothing else than the standard library.

A job reads once and ends soon: the replaced PAT works at least for the overlap. So the
overlap must be longer than the longest job.
"""

import base64
import datetime
import hashlib
import hmac
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request


def prove(value, pat, version, consumer, outcome):
    """The proof of a confirmation: HMAC-SHA256 by the PAT's value, in base64url."""
    lines = "".join(line + "\n" for line in ("patrol/confirm/1", pat, version, consumer, outcome))
    digest = hmac.new(value.strip().encode(), lines.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def confirmation(value, pat, version, consumer):
    """The CloudEvent by which a consumer says that it uses this version."""
    return {
        "specversion": "1.0",
        "id": f"{pat}/{version}/{consumer}/switched/confirmed",
        "source": f"/consumer/{consumer}",
        "type": "patrol.pat.confirmed",
        "subject": pat,
        "time": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "datacontenttype": "application/json",
        "data": {
            "pat": pat,
            "secretVersion": version,
            "consumer": consumer,
            "outcome": "switched",
            "proof": prove(value, pat, version, consumer, "switched"),
        },
    }


def azure(*arguments):
    done = subprocess.run(["az", *arguments, "--output", "json"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        # its text may quote what was asked for
        raise SystemExit(f"az {arguments[0]} {arguments[1]} failed: check the sign-in of this job and its roles")
    return json.loads(done.stdout)


def hand_over(name, value):
    """Makes value a secret variable of the job's later steps."""
    if "TF_BUILD" in os.environ:
        print(f"##vso[task.setvariable variable={name};issecret=true]{value}")
    elif "GITHUB_ENV" in os.environ:
        print(f"::add-mask::{value}")
        with open(os.environ["GITHUB_ENV"], "a", encoding="utf-8") as file:
            file.write(f"{name}={value}\n")
    else:
        raise SystemExit("this is neither Azure Pipelines nor GitHub Actions: there is nobody to hand the PAT to")


def confirm(event, namespace, queue):
    token = azure("account", "get-access-token", "--resource", "https://servicebus.azure.net")["accessToken"]
    base = namespace if "://" in namespace else "https://" + namespace
    request = urllib.request.Request(
        f"{base}/{queue}/messages",
        data=json.dumps(event).encode(),
        headers={
            "Authorization": "Bearer " + token,
            "Content-Type": "application/cloudevents+json",
            "BrokerProperties": json.dumps({"MessageId": event["id"], "Label": event["type"]}),
        },
    )
    with urllib.request.urlopen(request, timeout=30):
        pass


def warn(text):
    if "TF_BUILD" in os.environ:
        print(f"##vso[task.logissue type=warning]{text}")
    else:
        print(f"::warning::{text}")


def main():
    pat, variable = os.environ["PATROL_PAT"], os.environ.get("PATROL_VARIABLE") or "PATROL_VALUE"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
        raise SystemExit("PATROL_VARIABLE is not the name of a variable")
    # without a version: the latest one
    secret = azure("keyvault", "secret", "show", "--vault-name", os.environ["PATROL_VAULT"], "--name", pat)
    value, version = secret["value"].strip(), secret["id"].rsplit("/", 1)[1]
    if not re.fullmatch(r"[!-~]+", value):
        raise SystemExit(f"the secret {pat} is no PAT")
    hand_over(variable, value)
    print(f"{pat}: version {version} is in the variable {variable}")
    consumer, namespace = os.environ.get("PATROL_CONSUMER"), os.environ.get("PATROL_NAMESPACE")
    if not consumer or not namespace:
        return
    try:
        confirm(confirmation(value, pat, version, consumer), namespace, os.environ.get("PATROL_QUEUE") or "pat-confirmations")
    except (urllib.error.URLError, OSError, SystemExit):
        # the job can work: it has the new value
        warn("the switch to this version could not be confirmed: check the role Azure Service Bus Data Sender")


if __name__ == "__main__":
    sys.exit(main())
