// oidc-provider with one client; what its arguments name: where it is installed, its port, and a
// file for the client's first refresh token, as its owner would get it by authorizing the client.
import { writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, port, file] = process.argv.slice(2);
const module = `${folder}/node_modules/oidc-provider/lib/index.js`;
const { Provider } = await import(pathToFileURL(module));

const scope = "openid offline_access";
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: "shop",
      client_secret: "sample-client-secret",
      grant_types: ["authorization_code", "refresh_token"],
      redirect_uris: ["https://shop.example/"],
    },
  ],
  features: { devInteractions: { enabled: false } },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  rotateRefreshToken: true,
});

const client = await provider.Client.find("shop");
const grant = new provider.Grant({ accountId: "owner", clientId: "shop" });
grant.addOIDCScope(scope);
const grantId = await grant.save();
const token = new provider.RefreshToken({
  accountId: "owner",
  client,
  grantId,
  gty: "authorization_code",
  scope,
});
writeFileSync(file, await token.save());
provider.listen(Number(port), "127.0.0.1");
