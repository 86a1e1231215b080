// The page works without this. It makes the page easier: times in the reader's zone,
// a filter while typing, the outcome of a rotation, an administrator's revocation.
(() => {
  "use strict";
  const $ = (id) => document.getElementById(id);
  // Whatever the functions need as a key stands in this address, and nowhere else.
  const here = location.href.split("#")[0];

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
  const scripted = (root) => {
    for (const e of root.querySelectorAll(".script[hidden]")) e.hidden = false;
    for (const b of root.querySelectorAll("button[data-signin]")) {
      b.addEventListener("click", () => location.assign(b.dataset.signin + location.search));
    }
  };
  localTimes(document);
  scripted(document);
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
        const body = new URLSearchParams({view: "pat", name: awaited});
        const got = await fetch(here, {method: "POST", body, cache: "no-store"});
        // This page's policy would refuse the other page's style and script.
        const text = (await got.text()).replace(/<(style|script)\b[^]*?<\/\1>/g, "");
        const page = new DOMParser().parseFromString(text, "text/html");
        const fresh = page.getElementById("pat");
        if (fresh && fresh.dataset.version !== before) {
          const held = $("pat").contains(document.activeElement);
          const now = document.importNode(fresh, true);
          $("pat").replaceWith(now);
          localTimes(now);
          scripted(now);
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

  const form = $("revocations");
  if (!form) return;
  const result = $("rv-result");
  const add = (parent, tag, text, kind) => {
    const e = document.createElement(tag);
    // What turns the direction of writing, or hides, is shown as a mark.
    if (text !== undefined) e.textContent = String(text).replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, "\uFFFD");
    if (kind) e.className = kind;
    parent.append(e);
    return e;
  };
  const ask = async (body) => {
    const got = await fetch("/api/revocations", {
      method: "POST", cache: "no-store", redirect: "error",
      headers: {"Content-Type": "application/json", "X-Functions-Key": $("rv-key").value},
      body: JSON.stringify(body),
    });
    if (got.status === 401) return {problem: {title: "This is not the master key", detail: "Nothing was done."}};
    const answer = await got.json();
    return got.ok ? {answer} : {problem: answer};
  };
  const trouble = (p) => {
    const box = add(result, "div", undefined, "notice bad");
    add(box, "p", "✕ " + p.title, "lead");
    if (p.detail) add(box, "p", p.detail);
    if (p.code) add(box, "p", p.code, "quiet");
  };
  const show = (body, plan) => {
    add(result, "p", plan.count === 1 ? "1 PAT would be revoked." : plan.count + " PATs would be revoked.", "lead");
    for (const w of plan.warnings ?? []) add(result, "p", w);
    for (const n of plan.notFound ?? []) add(result, "p", "Not found: " + n);
    for (const a of plan.ambiguous ?? []) {
      const candidates = a.candidates.map((c) => c.descriptor).join(", ");
      add(result, "p", a.name + " means several users: " + candidates + ". None of them is touched.");
    }
    for (const u of plan.users ?? []) {
      const named = u.displayName && u.displayName !== u.principalName;
      add(result, "h3", named ? u.displayName + ", " + u.principalName : u.principalName);
      const list = add(result, "ul");
      for (const p of u.pats ?? []) {
        const ends = p.validTo ? ", ends " + formats.day.format(new Date(p.validTo)) : "";
        const note = p.kept ? " (stays)"
          : p.managed ? " (patrol manages it as " + p.name + ", and replaces it)"
          : p.foreign ? " (made by another patrol)"
          : "";
        add(add(list, "li"), "bdi", p.displayName).after(ends + note);
      }
      if (!u.pats?.length) add(list, "li", "no PATs");
    }
    if (!plan.confirmation) return;
    const acts = add(result, "div", undefined, "acts");
    const yes = add(acts, "button", plan.count === 1 ? "Revoke 1 PAT" : "Revoke " + plan.count + " PATs", "danger");
    yes.type = "button";
    yes.id = "rv-confirm";
    yes.addEventListener("click", () => run({...body, confirmation: plan.confirmation}));
    const no = add(acts, "button", "Cancel");
    no.type = "button";
    no.addEventListener("click", () => { result.replaceChildren(); $("rv-users").focus(); });
  };
  let running = false;
  const run = async (body) => {
    if (running) return;
    running = true;
    form.setAttribute("aria-busy", "true");
    result.replaceChildren();
    add(result, "p", body.confirmation ? "Revoking…" : "Asking Azure DevOps…");
    let got;
    try {
      got = await ask(body);
    } catch {
      const detail = body.confirmation ? "It is not known what was revoked: ask for the plan again." : "Try again.";
      got = {problem: {title: "No answer came", detail}};
    }
    running = false;
    form.removeAttribute("aria-busy");
    result.replaceChildren();
    const {confirmation, ...request} = body;
    if (got.problem) {
      trouble(got.problem);
      if (got.problem.plan) show(request, got.problem.plan);
    } else if (got.answer.executed) {
      const box = add(result, "div", undefined, "notice");
      const count = got.answer.revoked;
      add(box, "p", "✓ " + (count === 1 ? "1 PAT was revoked" : count + " PATs were revoked"), "lead");
      add(box, "p", got.answer.verified ? "Azure DevOps does not list any of them any more."
        : "Azure DevOps could not be asked whether it still lists some of them: ask for the plan again.");
      $("rv-key").value = "";
    } else {
      show(request, got.answer.plan);
    }
    result.focus();
  };
  form.addEventListener("submit", (e) => {
    e.preventDefault();
    const users = $("rv-users").value.split("\n").map((u) => u.trim()).filter(Boolean);
    const body = {organization: $("rv-organization").value.trim(), identity: $("rv-identity").value, users};
    if ($("rv-keep").checked) body.keepManaged = true;
    run(body);
  });
})();
