// oidc-provider as patrol's authority. The settings come as JSON in the
// environment variable AUTHORITY; the port is printed as the first line. It ends
// with its standard input, so that it does not outlive its starter.
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const settings = JSON.parse(process.env.AUTHORITY);
const prefix = new URL(settings.issuer).pathname;

const provider = new Provider(settings.issuer, {
  clients: settings.clients,
  scopes: ['openid', 'offline_access', 'profile', ...settings.scopes],
  claims: { openid: ['sub', 'oid', 'tid'], profile: ['name', 'preferred_username'] },
  conformIdTokenClaims: false, // these claims stand in the id token itself, as Entra has it
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, oid: `oid-of-${id}`, tid: settings.tenant, name: id, preferred_username: id }),
  }),
  pkce: { required: () => true },
  issueRefreshToken: () => true,
  rotateRefreshToken: () => true,
  clientAuthMethods: ['none', 'private_key_jwt'],
  enabledJWA: { clientAuthSigningAlgValues: ['PS256', 'RS256'] },
  features: { revocation: { enabled: true }, devInteractions: { enabled: true } },
  ttl: { AccessToken: 3600, RefreshToken: 90 * 86400, Grant: 90 * 86400, Session: 86400, Interaction: 3600, IdToken: 3600 },
  cookies: { keys: [settings.cookieKey] },
});
provider.proxy = true; // TLS ends in front of it

const answer = provider.callback();
const server = createServer((req, res) => {
  if (!req.url.startsWith(prefix)) {
    res.writeHead(404).end();
    return;
  }
  // Entra gives offline_access to whoever asks; OpenID Connect wants
  // prompt=consent for it.
  const asked = new URL(req.url, settings.issuer);
  if (asked.pathname === `${prefix}/auth` && !asked.searchParams.has('prompt')) {
    asked.searchParams.set('prompt', 'consent');
    req.url = asked.pathname + asked.search;
  }
  req.originalUrl = req.url;
  req.url = req.url.slice(prefix.length) || '/';
  answer(req, res);
});
server.listen(0, '127.0.0.1', () => console.log(String(server.address().port)));
process.stdin.on('end', () => process.exit(0)).resume();
