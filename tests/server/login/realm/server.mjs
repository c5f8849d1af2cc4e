// A real server of OpenID Connect (npm's oidc-provider, certified by the OpenID Foundation) for the tests.
// node realm.mjs PORT CALLBACK < settings.json; settings: keys (private JWKs), users (name: roles), folder of packages.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const [port, callback] = process.argv.slice(2);
const settings = JSON.parse(readFileSync(0, "utf8"));
const require = createRequire(settings.packages + "/");
const { Provider } = await import(require.resolve("oidc-provider"));

const claims = name => ({ sub: name, preferred_username: name, realm_access: { roles: settings.users[name] ?? [] } });

const provider = new Provider(`http://127.0.0.1:${port}`, {
  jwks: { keys: settings.keys },
  cookies: { keys: ["of the test"] },
  clients: [
    {
      client_id: "monailabel-app",
      token_endpoint_auth_method: "none",
      redirect_uris: [callback],
      application_type: "native",
      grant_types: ["authorization_code", "password"],
    },
  ],
  pkce: { required: () => true },
  conformIdTokenClaims: false,
  claims: { openid: ["sub"], profile: ["preferred_username"] },
  scopes: ["openid", "profile", "email"],
  findAccount: (_, id) => ({ accountId: id, claims: () => claims(id) }),
  // As Keycloak does, the access token is a JWT, and it holds the roles.
  extraTokenClaims: (_, token) => (token.accountId ? { azp: token.clientId, ...claims(token.accountId) } : {}),
  features: {
    devInteractions: { enabled: true }, // a form that takes any name and password
    rpInitiatedLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => "urn:monailabel",
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: "openid profile email",
        audience: "account",
        accessTokenFormat: "jwt",
        accessTokenTTL: 300,
        jwt: { sign: { alg: "RS256" } },
      }),
    },
  },
});

// The grant by name and password, which Slicer uses and Keycloak offers ("direct access grants").
provider.registerGrantType(
  "password",
  async context => {
    const { username, password } = context.oidc.params;
    if (!(username in settings.users) || password !== settings.password) {
      context.status = 401;
      context.body = { error: "invalid_grant" };
      return;
    }
    const token = new provider.AccessToken({
      accountId: username,
      client: context.oidc.client,
      grantId: "of the test",
      gty: "password",
      resourceServer: new provider.ResourceServer("urn:monailabel", {
        audience: "account",
        accessTokenFormat: "jwt",
        accessTokenTTL: 300,
        jwt: { sign: { alg: "RS256" } },
      }),
    });
    context.body = { access_token: await token.save(), token_type: "Bearer", expires_in: 300 };
  },
  ["username", "password"],
);
provider.on("server_error", (_, error) => console.error(error));
provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
