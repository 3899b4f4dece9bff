/** Imported first by tests whose services would log every refusal that the test provokes. */
Deno.env.set("RINGFABRIC_LOG", "error");
