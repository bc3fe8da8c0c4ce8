// Everything on the board works without this file; with it, new messages appear by themselves.
"use strict";

const list = document.getElementById("messages");
const live = document.getElementById("live");

function setLive(on) {
  live.hidden = false;
  live.textContent = on ? live.dataset.on : live.dataset.off;
  live.classList.toggle("on", on);
}

// A message comes when it is new, and again when its link has a title or its picture a small version.
function show(html) {
  const template = document.createElement("template");
  template.innerHTML = html; // made by our own template, which escapes what people write
  const message = template.content.firstElementChild;
  if (!message) return;
  tellTime(message);
  const known = document.getElementById(message.id);
  if (known) {
    known.replaceWith(message);
    return;
  }
  message.classList.add("new");
  list.prepend(message);
  const number = Number(message.id.slice("message-".length));
  list.dataset.newest = Math.max(number, Number(list.dataset.newest));
  document.getElementById("empty").hidden = true;
}

// A WebSocket carries the news; server-sent events do where something on the way lets none through.
let pause = 500;

function connect() {
  const url = new URL("/live?after=" + list.dataset.newest, location);
  url.protocol = url.protocol.replace("http", "ws");
  const socket = new WebSocket(url);
  let opened = false;
  socket.addEventListener("open", () => {
    opened = true;
    pause = 500;
    setLive(true);
  });
  socket.addEventListener("message", (event) => show(JSON.parse(event.data).html));
  socket.addEventListener("close", () => {
    setLive(false);
    if (!opened && pause === 500) return listen();
    setTimeout(connect, pause);
    pause = Math.min(pause * 2, 10000);
  });
}

function listen() {
  const updates = new EventSource("/updates?after=" + list.dataset.newest);
  updates.addEventListener("open", () => setLive(true));
  updates.addEventListener("error", () => setLive(false));
  updates.addEventListener("message", (event) => show(event.data));
}

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
connect();

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
