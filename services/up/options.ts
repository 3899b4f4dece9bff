/** How a fabric is started, as `up` and `demo` read it from their command lines. */
import type { LimitOptions, UplinkSpec } from "../../shared/api/mod.ts";

/** How a fabric is started. */
export interface Options extends LimitOptions {
  vfs?: number;
  guests: number;
  /** Further arguments of the built-in guests in their order; the last ones are for all that are left. */
  guestArgs: string[];
  /** Files with public keys of further plugin vendors. */
  trust: string[];
  /** Where guests with shells of their own listen: addresses that the vf service may reach. */
  shells: string[];
  /** Directory of front-ends' sockets to which the vhost service may connect. */
  frontEnds?: string;
  /** What of the host is to be behind the fabric: in place of what it had in its run before. */
  uplink?: UplinkSpec;
  /** Group, by name or number, that may connect to the ports' sockets. */
  socketGroup?: string;
  port: number;
  host: string;
  runDir: string;
  engineCpus?: string;
  spinUs?: number;
  json: boolean;
  /** False: no second process stands by for the NIC. */
  standby: boolean;
  /** False: everybody who reaches an API may ask everything. */
  token: boolean;
}
