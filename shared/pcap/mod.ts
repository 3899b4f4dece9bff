/** Capture files: pcapng written, pcap and pcapng read. */
export { SECTION_HEADER as PCAPNG_MAGIC } from "./blocks.ts";
export * from "./pcapng.ts";
export * from "./reader.ts";
export * from "./tally.ts";
export * from "./filter.ts";
export * from "./filter_steps.ts";
