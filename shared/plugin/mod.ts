/** Plugin images: what they say, who signed them, what they may do, and the form in which they run. */
export * from "./image.ts";
export * from "./module.ts";
export { GUARD_IMPORT, PLUGIN_EXPORTS } from "./module_format.ts";
export * from "./rejected.ts";
export * from "./sign.ts";
