/**
 * Who may call. Clients show a bearer token; peers a certificate signed by the cluster's CA (TLS) or the cluster
 * secret. A client's token opens nothing on the peer services, a secret nothing on the client service, and neither
 * is ever logged. Comparison takes the same time wherever two strings differ.
 *
 * With TLS the CA is the cluster's own: whoever holds a certificate signed by it is a node. Where the same CA signs
 * others too, set a cluster secret as well; both are then demanded.
 */
import { createHash, timingSafeEqual } from "node:crypto";

export const AUTHORIZATION = "authorization";

export const PeerHeader = {
  cluster: "ostraka-cluster",
  from: "ostraka-from",
  to: "ostraka-to",
  incarnation: "ostraka-incarnation",
  protocol: "ostraka-peer-protocol",
  secret: "ostraka-cluster-secret",
} as const;

export const PEER_PROTOCOL_VERSION = 3;

export function sameSecret(a: string, b: string): boolean {
  const hash = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(hash(a), hash(b));
}

/** What every peer stream begins with, in its metadata. */
export interface PeerHello {
  readonly clusterId: string;
  readonly fromNode: number;
  readonly toNode: number;
  /** Of the sender's data directory. */
  readonly incarnation: string;
  readonly protocol: number;
}

/** Who this node is, and whom it takes for a peer. */
export interface PeerIdentity {
  readonly clusterId: string;
  readonly nodeId: number;
  readonly incarnation: string;
  /** The reason to refuse this peer, or undefined. Called after cluster, addressee and version were found to match. */
  refuse(hello: PeerHello): string | undefined;
}

export interface ServerSecrets {
  /** Clients need none when undefined. */
  readonly authToken: string | undefined;
  readonly clusterSecret: string | undefined;
  readonly tls: boolean;
}

/** The reason to refuse a client, or undefined. */
export function refuseClient(secrets: ServerSecrets, authorization: string | undefined): string | undefined {
  if (secrets.authToken === undefined) return undefined;
  if (authorization === undefined) return "this node wants an authorization token";
  const space = authorization.indexOf(" ");
  const token = authorization.slice(space + 1);
  if (authorization.slice(0, space).toLowerCase() !== "bearer") return "this node wants a bearer token";
  return sameSecret(token, secrets.authToken) ? undefined : "the authorization token is wrong";
}

/** The reason to refuse a peer's credentials, or undefined. */
export function refusePeerCredentials(
  secrets: ServerSecrets,
  secret: string | undefined,
  hasCertificate: boolean,
): string | undefined {
  if (secrets.tls && !hasCertificate) return "a peer must show a certificate signed by the cluster's CA";
  if (secrets.clusterSecret !== undefined) {
    if (secret === undefined) return "a peer must show the cluster secret";
    return sameSecret(secret, secrets.clusterSecret) ? undefined : "the cluster secret is wrong";
  }
  if (!secrets.tls && secrets.authToken !== undefined)
    return "a cluster with client tokens and without TLS needs a cluster secret between its nodes";
  return undefined;
}

export function refusePeer(identity: PeerIdentity, hello: PeerHello): string | undefined {
  if (hello.protocol !== PEER_PROTOCOL_VERSION)
    return `node ${identity.nodeId} speaks peer protocol ${PEER_PROTOCOL_VERSION}, not ${hello.protocol}`;
  if (hello.clusterId !== identity.clusterId)
    return `node ${identity.nodeId} belongs to cluster ${identity.clusterId}, not ${hello.clusterId}`;
  if (hello.toNode !== identity.nodeId)
    return `this is node ${identity.nodeId}, not ${hello.toNode}: an address is out of date`;
  if (!Number.isSafeInteger(hello.fromNode) || hello.fromNode <= 0) return "the caller has no node id";
  if (hello.fromNode === identity.nodeId) return `a node cannot be its own peer`;
  return identity.refuse(hello);
}
