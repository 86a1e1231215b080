// Holds the current value of a PAT that patrol keeps fresh, for an application that uses it:
// reads the latest version of the secret, follows the events, tries a new value before it is
// used, swaps it in one step, and confirms. It never logs a value.
import {createHmac} from 'node:crypto';

export const CONTENT_TYPE = 'application/cloudevents+json';

/** The proof of a confirmation: HMAC-SHA256 by the PAT's value, in base64url. */
export function prove(value, {pat, secretVersion, consumer, outcome}) {
  const lines = ['patrol/confirm/1', pat, secretVersion, consumer, outcome].map((line) => line + '\n').join('');
  return createHmac('sha256', value.trim()).update(lines).digest('base64url');
}

/** A confirmation as the body of a message. */
export function confirmation(value, {pat, secretVersion, consumer, outcome, message}, now = new Date()) {
  const data = {pat, secretVersion, consumer, outcome};
  if (message) {
    data.message = [...message].slice(0, 200).join('');
  }
  data.proof = prove(value, data);
  return {
    specversion: '1.0',
    id: `${pat}/${secretVersion}/${consumer}/${outcome}/confirmed`,
    source: `/consumer/${consumer}`,
    type: 'patrol.pat.confirmed',
    subject: pat,
    time: now.toISOString(),
    datacontenttype: 'application/json',
    data,
  };
}

/** An event that will not get better by trying again: it belongs into the dead-letter queue. */
export class UnreadableEvent extends Error {}

/** Reads the body of a message: a buffer, a text, or what an SDK has made of it. */
export function decode(body) {
  let event = body;
  if (Buffer.isBuffer(body) || body instanceof Uint8Array || typeof body === 'string') {
    try {
      event = JSON.parse(Buffer.from(body).toString('utf8'));
    } catch {
      throw new UnreadableEvent('the body is no JSON');
    }
  }
  for (const name of ['specversion', 'id', 'source', 'type']) {
    if (typeof event?.[name] !== 'string' || event[name] === '') {
      throw new UnreadableEvent(`${name} is missing`);
    }
  }
  if (event.specversion !== '1.0') {
    throw new UnreadableEvent('specversion is not 1.0');
  }
  if (event.type === 'patrol.pat.rotated') {
    const {pat, secret} = event.data ?? {};
    if (typeof pat !== 'string' || typeof secret?.version !== 'string') {
      throw new UnreadableEvent('a rotated event without pat or secret.version');
    }
  }
  return event;
}

/** Whether an answer of Azure DevOps means that the PAT is not good. */
export function refused(response) {
  const toSignIn = response.status === 302 && (response.headers.get('location') ?? '').includes('_signin');
  return response.status === 401 || response.status === 203 || toSignIn;
}

export class Keeper {
  #value = '';
  #version = '';
  #confirmed = '';
  #reading = null;
  #timer = null;

  /**
   * pat: its name; secrets: a SecretClient. consumer and confirmations (a sender of the queue
   * pat-confirmations): without both nothing is confirmed. probe(value) tries a new value and throws
   * if it does not work. every: milliseconds between reads without an event, at least once in an overlap.
   * log(text): what happened, without a value.
   */
  constructor({pat, secrets, consumer, confirmations, probe, every = 3_600_000, log = () => {}}) {
    Object.assign(this, {pat, secrets, consumer, confirmations, probe, every, log});
  }

  /** The PAT as it is now. Ask for it at each use, and keep it nowhere. */
  get value() {
    return this.#value;
  }

  get version() {
    return this.#version;
  }

  /** Reads for the first time, and then at least every `every`. */
  async start() {
    await this.refresh();
    this.#timer = setInterval(() => this.refresh().catch((e) => this.log(e.message)), this.every);
    this.#timer.unref();
  }

  stop() {
    clearInterval(this.#timer);
  }

  /** Reads the latest version; if it is another one: tries it, takes it, confirms. Reads at once share one. */
  refresh() {
    this.#reading ??= this.#read().finally(() => (this.#reading = null));
    return this.#reading;
  }

  async #read() {
    let secret;
    try {
      secret = await this.secrets.getSecret(this.pat); // the latest: an event's version may be disabled by now
    } catch {
      throw new Error(`reading the secret ${this.pat} failed: check the vault and the role Key Vault Secrets User`);
    }
    const value = secret.value.trim();
    const version = secret.properties.version;
    if (version !== this.#version) {
      await this.#take(value, version);
    }
    if (this.#confirmed !== version) {
      await this.#confirm(value, version, 'switched');
      this.#confirmed = version;
    }
  }

  async #take(value, version) {
    try {
      await this.probe?.(value);
    } catch {
      await this.#confirm(value, version, 'failed', 'the new value was refused').catch(() => {});
      throw new Error(`version ${version} of ${this.pat} does not work here`);
    }
    this.#value = value;
    this.#version = version;
    this.log(`a new PAT is in use: ${this.pat}, version ${version}`);
  }

  async #confirm(value, secretVersion, outcome, message) {
    if (!this.confirmations || !this.consumer) {
      return;
    }
    const event = confirmation(value, {pat: this.pat, secretVersion, consumer: this.consumer, outcome, message});
    await this.confirmations.sendMessages({
      body: Buffer.from(JSON.stringify(event)),
      contentType: CONTENT_TYPE,
      messageId: event.id,
      subject: event.type,
    });
  }

  /** Takes the body of one message. Throws UnreadableEvent for what belongs into the dead-letter queue. */
  async handle(body) {
    const event = decode(body);
    const isOurs = event.type === 'patrol.pat.rotated' && event.data.pat === this.pat;
    if (isOurs && event.data.secret.version !== this.#version) {
      await this.refresh();
    }
  }

  /** Follows a receiver of a subscription; gives what ends it. */
  follow(receiver) {
    return receiver.subscribe(
      {
        processMessage: async (message) => {
          try {
            await this.handle(message.body);
            await receiver.completeMessage(message);
          } catch (e) {
            if (e instanceof UnreadableEvent) {
              await receiver.deadLetterMessage(message, {
                deadLetterReason: 'unreadable',
                deadLetterErrorDescription: e.message,
              });
              return;
            }
            this.log(e.message);
            await receiver.abandonMessage(message);
          }
        },
        processError: async ({error}) => this.log(`following the events: ${error.code ?? error.name}`),
      },
      {autoCompleteMessages: false},
    );
  }

  /** fetch for Azure DevOps: adds the PAT, and after a refusal reads again and repeats once. */
  async fetch(url, init = {}) {
    const version = this.#version;
    const response = await this.#signed(url, init);
    const isRepeatable = !(init.body instanceof ReadableStream);
    if (!refused(response) || !isRepeatable) {
      return response;
    }
    await this.refresh().catch((e) => this.log(e.message));
    return this.#version === version ? response : this.#signed(url, init);
  }

  #signed(url, init) {
    const headers = new Headers(init.headers);
    headers.set('Authorization', 'Basic ' + Buffer.from(':' + this.#value).toString('base64'));
    headers.set('X-TFS-FedAuthRedirect', 'Suppress');
    return fetch(url, {...init, headers, redirect: 'manual'});
  }
}
