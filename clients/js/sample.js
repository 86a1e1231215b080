// A consumer that uses a PAT twice a second and says on each line what came of it.
// `make consumer` runs it beside the sandbox; sandbox.env has what it reads.
import {ManagedIdentityCredential} from '@azure/identity';
import {SecretClient} from '@azure/keyvault-secrets';
import {ServiceBusClient} from '@azure/service-bus';
import {Keeper} from './keeper.js';

const env = process.env;
const credential = new ManagedIdentityCredential({clientId: env.AZURE_CLIENT_ID});
const secrets = new SecretClient(env.KEY_VAULT_URL, credential, {disableChallengeResourceVerification: true});
// In Azure: new ServiceBusClient(env.SERVICEBUS_NAMESPACE, credential). A sandbox has a port of its own.
const [host] = env.SERVICEBUS_NAMESPACE.split(':');
const bus = new ServiceBusClient(host, credential, {customEndpointAddress: env.SERVICEBUS_CUSTOM_ADDRESS});

const projects = `${env.AZURE_DEVOPS_URL}/${env.AZURE_DEVOPS_ORG}/_apis/projects?api-version=7.1`;
const keeper = new Keeper({
  pat: env.PATROL_PAT ?? 'three-minutes',
  secrets,
  consumer: env.PATROL_CONSUMER,
  confirmations: bus.createSender(env.CONFIRMATION_QUEUE),
  every: 60_000,
  log: (text) => console.log('log', text),
  probe: async (value) => {
    const headers = {
      Authorization: 'Basic ' + Buffer.from(':' + value).toString('base64'),
      'X-TFS-FedAuthRedirect': 'Suppress',
    };
    const response = await fetch(projects, {headers, redirect: 'manual'});
    if (response.status !== 200) {
      throw new Error(`status ${response.status}`);
    }
  },
});
await keeper.start();
const following = keeper.follow(bus.createReceiver(env.EVENT_TOPIC, env.SERVICEBUS_SUBSCRIPTION));
const using = setInterval(async () => {
  try {
    const response = await keeper.fetch(projects);
    console.log('use', response.status, keeper.version);
  } catch (e) {
    console.log('use', e.name, keeper.version);
  }
}, Number(env.SAMPLE_EVERY ?? 500));
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, async () => {
    clearInterval(using);
    keeper.stop();
    await following.close();
    await bus.close();
    process.exit(0);
  });
}
