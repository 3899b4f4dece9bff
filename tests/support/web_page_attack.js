// What a hostile page tries on the APIs at `bases`. It answers what it could read: nothing is to be there.
export async function attack(bases) {
  const read = [];
  const order = JSON.stringify({ vlan: 666 });
  const types = ["text/plain", "application/json", "application/x-www-form-urlencoded", "multipart/form-data"];
  const tries = [
    ["/api/v1/vfs", {}],
    ["/api/v1/vfs", { credentials: "include" }],
    ["/api/v1/vfs", { mode: "no-cors" }],
    ["/metrics", {}],
    ["/api/v1/events", {}],
    ["/api/v1/vfs/0", { method: "DELETE" }],
    ["/api/v1/vports", { method: "POST" }],
    ["/api/v1/vports", { method: "POST", mode: "no-cors" }],
    ...types.flatMap((type) =>
      ["PATCH", "POST", "PUT"].flatMap((method) =>
        ["/api/v1/vfs/0", "/api/v1/nic", "/api/v1/vports", "/api/v1/vfs/0/mode", "/api/v1/ports/0", "/api/v1/ping"].map(
          (
            path,
          ) => [path, { method, body: order, headers: { "content-type": type } }],
        )
      )
    ),
  ];
  for (const base of bases) {
    for (const [path, init] of tries) {
      try {
        const response = await fetch(base + path, { ...init, signal: AbortSignal.timeout(2000) });
        if (response.ok) {
          read.push(`${init.method ?? "GET"} ${base}${path}: ${response.status} ${await response.text()}`);
        }
      } catch {
        // The browser keeps it from the page, or the service does.
      }
    }
    navigator.sendBeacon(`${base}/api/v1/vports`, new Blob(["{}"], { type: "text/plain" }));
    for (const tag of ["img", "script", "iframe"]) {
      const element = document.createElement(tag);
      element.src = `${base}/api/v1/vfs`;
      document.body?.append(element);
    }
    const form = document.createElement("form");
    const frame = document.createElement("iframe");
    frame.name = "sink";
    Object.assign(form, { method: "post", action: `${base}/api/v1/vports`, target: "sink", enctype: "text/plain" });
    const field = document.createElement("input");
    Object.assign(field, { name: '{"a":"', value: '"}' });
    form.append(field);
    document.body?.append(frame, form);
    form.submit();
    await new Promise((resolve) => setTimeout(resolve, 300));
    for (const inner of document.querySelectorAll("iframe")) {
      try {
        const text = inner.contentDocument?.body?.textContent ?? "";
        if (text.includes('"mac"')) read.push(`iframe: ${text}`);
      } catch {
        // Another origin.
      }
    }
  }
  return read;
}
