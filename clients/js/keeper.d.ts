import type {SecretClient} from '@azure/keyvault-secrets';
import type {ServiceBusReceiver, ServiceBusSender} from '@azure/service-bus';

export declare const CONTENT_TYPE: 'application/cloudevents+json';

export interface Confirmation {
  pat: string;
  secretVersion: string;
  consumer: string;
  outcome: 'switched' | 'failed';
  message?: string;
}

export interface Event {
  specversion: '1.0';
  id: string;
  source: string;
  type: string;
  subject?: string;
  time?: string;
  data?: any;
}

export declare class UnreadableEvent extends Error {}
export declare function prove(value: string, confirmation: Omit<Confirmation, 'message'>): string;
export declare function confirmation(value: string, confirmation: Confirmation, now?: Date): Event;
export declare function decode(body: unknown): Event;
export declare function refused(response: Response): boolean;

export interface Options {
  pat: string;
  secrets: Pick<SecretClient, 'getSecret'>;
  consumer?: string;
  confirmations?: Pick<ServiceBusSender, 'sendMessages'>;
  probe?: (value: string) => Promise<void>;
  every?: number;
  log?: (text: string) => void;
}

export declare class Keeper {
  constructor(options: Options);
  readonly value: string;
  readonly version: string;
  start(): Promise<void>;
  stop(): void;
  refresh(): Promise<void>;
  handle(body: unknown): Promise<void>;
  follow(receiver: ServiceBusReceiver): {close(): Promise<void>};
  fetch(url: string, init?: RequestInit): Promise<Response>;
}
