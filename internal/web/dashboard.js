// The page works without this. It makes the page easier: times in the reader's zone,
// a filter while typing, the outcome of a rotation, an address for what a form has shown.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  const formats = {
    long: new Intl.DateTimeFormat("en-GB", {dateStyle: "medium", timeStyle: "short"}),
    day: new Intl.DateTimeFormat("en-GB", {dateStyle: "medium"}),
  };
  const localTimes = (root) => {
    for (const t of root.querySelectorAll("time[data-time]")) {
      const at = new Date(t.dateTime);
      if (isNaN(at)) continue;
      t.title ||= t.textContent;
      t.textContent = formats[t.dataset.time].format(at);
    }
  };
  localTimes(document);
  // A reload shows the view, and sends no form again.
  const address = document.body.dataset.address;
  if (address) history.replaceState(null, "", address);
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  if (zone) $("zone").textContent = "Times are in " + zone + ".";

  // A form is sent once, however often it is pressed.
  document.addEventListener("submit", (e) => {
    if (e.defaultPrevented) return;
    if (e.target.hasAttribute("aria-busy")) e.preventDefault();
    else e.target.setAttribute("aria-busy", "true");
  });
  addEventListener("pageshow", () => {
    for (const f of document.querySelectorAll("form[aria-busy]")) f.removeAttribute("aria-busy");
  });

  const search = $("search");
  search?.addEventListener("input", () => {
    const want = search.value.trim().toLowerCase();
    let shown = 0, all = 0;
    for (const li of document.querySelectorAll("ul[data-search] > li")) {
      all++;
      li.hidden = want !== "" && !li.dataset.text.toLowerCase().includes(want);
      if (!li.hidden) shown++;
    }
    $("shown").textContent = want === "" ? "" : shown + " of " + all + " on this page. Show searches all pages.";
  });

  // After a rotation was ordered: ask again until the PAT has another version.
  const notice = $("notice");
  const awaited = notice?.dataset.await;
  if (awaited && $("pat")) {
    const before = $("pat").dataset.version;
    let left = 60;
    const poll = async () => {
      try {
        const view = "/api/dashboard?" + new URLSearchParams({pat: awaited});
        const got = await fetch(view, {cache: "no-store", redirect: "manual"});
        if (got.type === "opaqueredirect") return; // the session has ended
        // This page's policy would refuse the other page's style and script.
        const text = (await got.text()).replace(/<(style|script)\b[^]*?<\/\1>/g, "");
        const page = new DOMParser().parseFromString(text, "text/html");
        const fresh = page.getElementById("pat");
        if (fresh && fresh.dataset.version !== before) {
          const held = $("pat").contains(document.activeElement);
          const now = document.importNode(fresh, true);
          $("pat").replaceWith(now);
          localTimes(now);
          notice.querySelectorAll("p:not(.lead)").forEach((p) => p.remove());
          $("notice-title").textContent = "Done: the new version is in the vault";
          document.title = "Done - patrol";
          if (held) notice.focus();
          return;
        }
      } catch {
        // The next request may succeed.
      }
      if (--left > 0) setTimeout(poll, 3000);
    };
    setTimeout(poll, 2000);
  }
})();
