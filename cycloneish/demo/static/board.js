// Everything on the board works without this file; with it, new messages appear by themselves.
"use strict";

const list = document.getElementById("messages");
const live = document.getElementById("live");
const updates = new EventSource("/updates?after=" + list.dataset.newest);

function setLive(on) {
  live.hidden = false;
  live.textContent = on ? live.dataset.on : live.dataset.off;
  live.classList.toggle("on", on);
}
updates.addEventListener("open", () => setLive(true));
updates.addEventListener("error", () => setLive(false));
updates.addEventListener("message", (event) => {
  const template = document.createElement("template");
  template.innerHTML = event.data; // made by our own template, which escapes what people write
  const message = template.content.firstElementChild;
  if (!message || document.getElementById(message.id)) return;
  message.classList.add("new");
  tellTime(message);
  list.prepend(message);
  document.getElementById("empty").hidden = true;
});

// Times go on while the page is open, and are the reader's own when pointed at.
const language = document.documentElement.lang;
const ago = new Intl.RelativeTimeFormat(language, { numeric: "auto" });

function tellTime(element) {
  for (const time of element.querySelectorAll("time")) {
    const written = new Date(time.dateTime);
    const seconds = Math.max(0, (Date.now() - written) / 1000);
    time.title = written.toLocaleString(language);
    if (seconds < 45) time.textContent = ago.format(0, "second");
    else if (seconds < 50 * 60) time.textContent = ago.format(-Math.ceil(seconds / 60), "minute");
    else if (seconds < 22 * 3600) time.textContent = ago.format(-Math.ceil(seconds / 3600), "hour");
  }
}
tellTime(list);
setInterval(tellTime, 20000, list);

const text = document.getElementById("text");
if (text) {
  const form = text.form;
  const picture = form.elements.picture;
  const label = form.querySelector(".file .label");
  const addPicture = label.textContent;
  picture.addEventListener("change", () => {
    const [file] = picture.files;
    label.textContent = file ? file.name : addPicture;
    form.querySelector(".preview")?.remove();
    if (file && file.type.startsWith("image/")) {
      const preview = document.createElement("img");
      preview.className = "preview";
      preview.alt = "";
      preview.src = URL.createObjectURL(file);
      form.querySelector(".row").before(preview);
    }
  });
  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
}
