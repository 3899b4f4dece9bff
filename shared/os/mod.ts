/** The operating system: the C library, descriptors, mappings, waiting, sockets that carry descriptors. */
export * from "./arena.ts";
export * from "./epoll.ts";
export * from "./fd.ts";
export * from "./files.ts";
export * from "./interfaces.ts";
export * from "./io_uring.ts";
export * from "./kinds.ts";
export * from "./listener.ts";
export { check, errno, libc, OsError } from "./libc.ts";
export * from "./memory_io.ts";
export * from "./net_namespace.ts";
export * from "./notifier.ts";
export * from "./packet_socket.ts";
export * from "./pipe_relay.ts";
export * from "./sigbus.ts";
export * from "./socket.ts";
export * from "./tap.ts";
export * from "./wasm_memory.ts";
