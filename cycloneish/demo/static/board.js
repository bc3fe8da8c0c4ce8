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

// The reader's own time zone, when pointing at a time.
function tellTime(element) {
  for (const time of element.querySelectorAll("time")) {
    time.title = new Date(time.dateTime).toLocaleString(document.documentElement.lang);
  }
}
tellTime(list);

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
