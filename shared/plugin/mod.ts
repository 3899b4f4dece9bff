/** Plugin images: what they say, who signed them, what they may do. */
export * from "./image.ts";
export * from "./sign.ts";
