/** Capture files: pcapng written, pcap and pcapng read. */
export { SECTION_HEADER as PCAPNG_MAGIC } from "./blocks.ts";
export * from "./pcapng.ts";
export * from "./reader.ts";
