/** The functions of the guest's Wasm, its IPv4 host, as the worker calls them. */

/** The host above a data path. */
export interface HostExports {
  boot(): void;
  poll(nowNs: number): number;
  prepareTx(pair: number): number;
  txAccepted(pair: number, n: number): number;
  txCompleted(pair: number, n: number): number;
  preparePost(pair: number): number;
  posted(pair: number, n: number, taken: number): void;
  received(pair: number, n: number): number;
  reclaim(path: number): void;
  txHeld(): number;
  txWaiting(): number;
}
