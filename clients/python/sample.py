"""A consumer that uses a PAT twice a second and says on each line what came of it.
`make consumer CLIENT=python` runs it beside the sandbox; sandbox.env has what it reads."""

import base64
import json
import logging
import os
import signal
import sys
import threading

import requests
from azure.identity import ManagedIdentityCredential
from azure.keyvault.secrets import SecretClient
from azure.servicebus import ServiceBusClient, ServiceBusMessage, TransportType

from patrol_keeper import CONTENT_TYPE, Keeper

env = os.environ
logging.basicConfig(stream=sys.stdout, level=logging.WARNING, format="log %(message)s")
logging.getLogger("patrol").setLevel(logging.INFO)

credential = ManagedIdentityCredential(client_id=env["AZURE_CLIENT_ID"])
secrets = SecretClient(env["KEY_VAULT_URL"], credential, verify_challenge_resource=False)
# In Azure: ServiceBusClient(env["SERVICEBUS_NAMESPACE"], credential). A sandbox has a port and an
# authority of its own.
host, _, port = env["SERVICEBUS_NAMESPACE"].partition(":")
bus = ServiceBusClient(
    host,
    credential,
    transport_type=TransportType.AmqpOverWebsocket,
    custom_endpoint_address=f"https://{host}:{port}",
    connection_verify=env["SSL_CERT_FILE"],
)
sender = bus.get_queue_sender(env["CONFIRMATION_QUEUE"])
sending = threading.Lock()
projects = f"{env['AZURE_DEVOPS_URL']}/{env['AZURE_DEVOPS_ORG']}/_apis/projects?api-version=7.1"
session = requests.Session()


def confirm(event):
    with sending:
        sender.send_messages(
            ServiceBusMessage(
                json.dumps(event).encode(), content_type=CONTENT_TYPE, message_id=event["id"], subject=event["type"]
            )
        )


def ask(value, headers):
    authorization = "Basic " + base64.b64encode(f":{value}".encode()).decode()
    answer = session.get(
        projects, headers={**headers, "Authorization": authorization}, allow_redirects=False, timeout=10
    )
    return answer.status_code, None


def probe(value):
    status, _ = ask(value, {"X-TFS-FedAuthRedirect": "Suppress"})
    if status != 200:
        raise RuntimeError(f"status {status}")


stop = threading.Event()
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *_: stop.set())
keeper = Keeper(env.get("PATROL_PAT", "three-minutes"), secrets, env["PATROL_CONSUMER"], confirm, probe)
receiver = bus.get_subscription_receiver(env["EVENT_TOPIC"], env["SERVICEBUS_SUBSCRIPTION"])
following = threading.Thread(target=keeper.follow, args=(receiver, stop))
following.start()
while not stop.wait(int(env.get("SAMPLE_EVERY", "500")) / 1000):
    status, _ = keeper.call(ask)
    print("use", status, keeper.version, flush=True)
following.join()
receiver.close()
sender.close()
bus.close()
