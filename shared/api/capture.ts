/** Captures over HTTP: what is asked of them, at the PF and at the services whose engines have the frames. */
import { z } from "@hono/zod-openapi";

/** The media type of a pcapng file. */
export const PCAPNG_TYPE = "application/x-pcapng";

/** What is kept of which frames. */
export const CaptureQuery = z.object({
  snap: z.string().regex(/^\d{1,6}$/, "is a number of bytes").transform(Number)
    .refine((bytes) => bytes >= 32 && bytes <= 262_144, "is 32 to 262144 bytes").default(262_144)
    .openapi({ type: "integer", description: "Bytes of each frame that are kept at the most" }),
  filter: z.string().max(1024, "a filter has up to 1024 characters").default("")
    .openapi({ description: "Which frames are wanted, such as: host 10.0.0.5 and not tcp port 22" }),
  dropped: z.enum(["true", "false"]).default("false").openapi({ description: "Only frames that were dropped" }),
});
export type CaptureQuery = z.output<typeof CaptureQuery>;

/** The same at the NIC and at the vhost service, which are told of which ports. */
export const PortsCaptureQuery = CaptureQuery.extend({
  ports: z.string().regex(/^(uplink|pf|\d{1,3})(,(uplink|pf|\d{1,3}))*$/, "is numbers, pf and uplink, with commas")
    .transform((text) => [...new Set(text.split(","))]).optional()
    .openapi({ type: "string", description: "Numbers of VFs (at vhost: of vports), pf, uplink; nothing: all of them" }),
});
export type PortsCaptureQuery = z.output<typeof PortsCaptureQuery>;

/** What a capture's route answers. */
export const captureAnswer = {
  description: "A pcapng file that goes on until it is not read any more",
  content: { [PCAPNG_TYPE]: { schema: z.any().openapi({ type: "string", format: "binary" }) } },
};

/** A query as it is sent on. */
export function captureSearch(
  { snap, filter, dropped }: Partial<Record<keyof CaptureQuery, string | number | undefined>>,
  ports?: string,
): string {
  const search = new URLSearchParams();
  for (const [key, value] of Object.entries({ ports, snap, filter, dropped })) {
    if (value !== undefined && value !== "") search.set(key, String(value));
  }
  const text = search.toString();
  return text === "" ? "" : `?${text}`;
}
