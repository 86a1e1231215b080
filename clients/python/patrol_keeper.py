"""Holds the current value of a PAT that patrol keeps fresh, for an application that uses it:
reads the latest version of the secret, follows the events, tries a new value before it is
used, swaps it in one step, and confirms. It never logs a value, nor puts one into an error.

Needs azure-servicebus, azure-identity and azure-keyvault-secrets.
"""

import base64
import datetime
import hashlib
import hmac
import json
import logging
import threading

CONTENT_TYPE = "application/cloudevents+json"
REFUSED = (401, 203, 302)

log = logging.getLogger("patrol")


def prove(value, pat, version, consumer, outcome):
    """The proof of a confirmation: HMAC-SHA256 by the PAT's value, in base64url."""
    lines = "".join(line + "\n" for line in ("patrol/confirm/1", pat, version, consumer, outcome))
    digest = hmac.new(value.strip().encode(), lines.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def confirmation(value, pat, version, consumer, outcome, message=""):
    """A confirmation as a CloudEvent."""
    data = {"pat": pat, "secretVersion": version, "consumer": consumer, "outcome": outcome}
    if message:
        data["message"] = message[:200]
    data["proof"] = prove(value, pat, version, consumer, outcome)
    return {
        "specversion": "1.0",
        "id": f"{pat}/{version}/{consumer}/{outcome}/confirmed",
        "source": f"/consumer/{consumer}",
        "type": "patrol.pat.confirmed",
        "subject": pat,
        "time": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "datacontenttype": "application/json",
        "data": data,
    }


class UnreadableEvent(Exception):
    """An event that will not get better by trying again: it belongs into the dead-letter queue."""


def decode(body):
    """Reads the body of a message."""
    try:
        event = json.loads(body)
    except ValueError:
        raise UnreadableEvent("the body is no JSON") from None
    for name in ("specversion", "id", "source", "type"):
        if not isinstance(event, dict) or not isinstance(event.get(name), str) or not event[name]:
            raise UnreadableEvent(f"{name} is missing")
    if event["specversion"] != "1.0":
        raise UnreadableEvent("specversion is not 1.0")
    if event["type"] == "patrol.pat.rotated":
        data = event.get("data")
        secret = data.get("secret") if isinstance(data, dict) else None
        version = secret.get("version") if isinstance(secret, dict) else None
        if not isinstance(version, str) or not isinstance(data.get("pat"), str):
            raise UnreadableEvent("a rotated event without pat or secret.version")
    return event


class Keeper:
    """Holds one PAT. It may be used from many threads at once.

    secrets: a SecretClient. consumer and confirm (takes a CloudEvent, as a dict, and sends it to
    the queue pat-confirmations): without both nothing is confirmed. probe(value) tries a new value
    and raises if it does not work.
    """

    def __init__(self, pat, secrets, consumer="", confirm=None, probe=None):
        self.pat, self.consumer = pat, consumer
        self._secrets, self._confirm_by, self._probe = secrets, confirm, probe
        self._reading = threading.Lock()
        self._held = ("", "")  # value and version change together
        self._confirmed = ""
        self.refresh()

    @property
    def value(self):
        """The PAT as it is now. Ask for it at each use, and keep it nowhere."""
        return self._held[0]

    @property
    def version(self):
        return self._held[1]

    def refresh(self):
        """Reads the latest version; if it is another one: tries it, takes it, confirms."""
        with self._reading:
            try:
                secret = self._secrets.get_secret(self.pat)  # an event's version may be disabled by now
            except Exception:
                raise RuntimeError(
                    f"reading the secret {self.pat} failed: check the vault and the role Key Vault Secrets User"
                ) from None
            value, version = secret.value.strip(), secret.properties.version
            if version != self.version:
                self._take(value, version)
            if self._confirmed != version:
                self._confirm(value, version, "switched")
                self._confirmed = version

    def _take(self, value, version):
        try:
            if self._probe:
                self._probe(value)
        except Exception:
            try:
                self._confirm(value, version, "failed", "the new value was refused")
            except Exception:
                log.warning("a failure could not be confirmed")
            raise RuntimeError(f"version {version} of {self.pat} does not work here") from None
        self._held = (value, version)
        log.info("a new PAT is in use: %s, version %s", self.pat, version)

    def _confirm(self, value, version, outcome, message=""):
        if self._confirm_by and self.consumer:
            self._confirm_by(confirmation(value, self.pat, version, self.consumer, outcome, message))

    def handle(self, body):
        """Takes the body of one message; UnreadableEvent is for the dead-letter queue."""
        event = decode(body)
        is_ours = event["type"] == "patrol.pat.rotated" and event["data"]["pat"] == self.pat
        if is_ours and event["data"]["secret"]["version"] != self.version:
            self.refresh()

    def follow(self, receiver, stop):
        """Follows a ServiceBusReceiver until the event stop is set. Read again at least once in an
        overlap: call refresh by a timer."""
        while not stop.is_set():
            for message in receiver.receive_messages(max_message_count=10, max_wait_time=1):
                try:
                    self.handle(b"".join(message.body))
                    receiver.complete_message(message)
                except UnreadableEvent as e:
                    receiver.dead_letter_message(message, reason="unreadable", error_description=str(e))
                except Exception as e:
                    log.warning("following a PAT: %s", e)
                    receiver.abandon_message(message)

    def call(self, send):
        """Calls Azure DevOps: send(value, headers) gives a status and whatever else. After a refusal the
        secret is read again, and if there is another value, send is called once more."""
        headers = {"X-TFS-FedAuthRedirect": "Suppress"}
        value, version = self._held
        status, answer = send(value, headers)
        if status not in REFUSED:
            return status, answer
        try:
            self.refresh()
        except RuntimeError as e:
            log.warning("%s", e)
        if self.version == version:
            return status, answer
        return send(self.value, headers)
