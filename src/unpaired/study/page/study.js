// One rater's way through a study: enter a name, answer the questions about each picture, done.
// Nothing here knows which method made a picture: pictures are named by random ids.

const $ = (id) => document.getElementById(id);
const screens = ["welcome", "study", "finished"];

let study; // what /api/study answered
let steps = []; // one per question and picture, in this rater's order: { item, question }
let at = 0; // position in steps; steps.length is the finish
let sending = Promise.resolve(true); // the last vote on its way: true once it is kept
let leaving = false; // Next was pressed: what is pressed before the next question shows belongs to neither

class Refused extends Error {
  constructor(status, body) {
    super(body.error);
    Object.assign(this, { status, body });
  }
}

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(path, { ...options, cache: "no-store", signal: AbortSignal.timeout(20000) });
  } catch {
    throw new Error("The server does not answer. Your earlier answers are saved; try again in a moment.");
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Refused(answer.status, { error: `The server refused (${answer.status}).`, ...found });
  return found;
}

function say(error) {
  $("message").textContent = error ? error.message : "";
  $("message").hidden = !error;
}

function fill(values) {
  for (const [name, value] of Object.entries(values)) {
    for (const place of document.querySelectorAll(`[data-fill="${name}"]`)) place.textContent = value;
  }
}

function show(screen) {
  for (const id of screens) $(id).hidden = id !== screen;
  const heading = $(screen).querySelector("h1");
  heading.focus({ preventScroll: true });
  window.scrollTo(0, 0);
}

const counted = (n, one, many) => `${n} ${n === 1 ? one : many}`;

// ---------------------------------------------------------------------------------------------------- entering

function begin(found) {
  study = found;
  const questions = study.images * study.questions.length;
  fill({
    images: counted(study.images, "picture", "pictures"),
    methods: counted(study.methods, "version", "versions"),
    minutes: counted(Math.max(1, Math.round((questions * 5) / 60)), "minute", "minutes"),
    "last-key": study.methods,
  });
  if (!study.rater) {
    $("taken").hidden = true;
    $("enter").hidden = false;
    show("welcome");
    $("name").focus({ preventScroll: true });
    return;
  }
  for (const item of study.rater.items) item.kept = { ...item.answers }; // what the server is known to have
  steps = study.rater.items.flatMap((item) => study.questions.map((question) => ({ item, question })));
  fill({ rater: study.rater.name });
  const first = steps.findIndex((step) => !answered(step));
  go(first < 0 ? steps.length : first);
}

async function enter(resume) {
  try {
    say();
    begin(await ask("/api/enter", { name: $("name").value, resume }));
  } catch (error) {
    const taken = error instanceof Refused && error.body.taken;
    if (!taken) return say(error);
    fill({ "taken-name": taken.name, "taken-votes": `${taken.votes} of ${taken.of} answers` });
    $("enter").hidden = true;
    $("taken").hidden = false;
    $("resume").focus();
  }
}

// ---------------------------------------------------------------------------------------------------- answering

const answered = (step) => step.item.answers[step.question.key];

function go(to) {
  at = Math.max(0, Math.min(steps.length, to));
  if (at < steps.length) {
    draw();
    return;
  }
  const open = steps.findIndex((step) => !answered(step));
  if (open >= 0) return go(open);
  fill({ votes: `All ${steps.length} answers` });
  show("finished");
}

function draw() {
  const { item, question } = steps[at];
  const number = Math.floor(at / study.questions.length);
  fill({ position: `Picture ${number + 1} of ${study.images}` });
  $("dots").replaceChildren(...study.questions.map((other) => {
    const dot = document.createElement("i");
    dot.className = other === question ? "now" : item.answers[other.key] ? "done" : "";
    return dot;
  }));
  $("question").textContent = question.title;
  $("hint").textContent = question.hint;

  const examples = question.shows_target ? study.target_examples : [];
  $("examples").hidden = !examples.length;
  $("examples").style.setProperty("--examples", examples.length);
  $("examples").querySelector("div")
    .replaceChildren(...examples.map((file, i) => picture(file, `Real picture ${i + 1}`)));

  const pictures = $("pictures");
  pictures.classList.toggle("even", item.choices.length % 2 === 0);
  pictures.style.setProperty("--count", item.choices.length);
  pictures.style.setProperty("--ratio", item.width / item.height);
  const source = $("source").querySelector("img");
  source.className = study.hard_pixels ? "hard" : "";
  source.src = `/picture/${item.source}`;
  $("choices").replaceChildren(...item.choices.map((file, i) => choice(file, i)));
  mark();
  show("study");
  $("spoken").textContent =
    `Picture ${number + 1} of ${study.images}, question ${(at % study.questions.length) + 1} of ` +
    `${study.questions.length}: ${question.title}`;
  const following = steps[at + study.questions.length]?.item;
  for (const file of following ? [following.source, ...following.choices] : []) new Image().src = `/picture/${file}`;
}

function picture(file, words) {
  const image = document.createElement("img");
  image.className = study.hard_pixels ? "hard" : "";
  image.alt = words;
  image.draggable = false;
  image.src = `/picture/${file}`;
  return image;
}

function choice(file, i) {
  const button = document.createElement("button");
  const label = document.createElement("span");
  const badge = document.createElement("b");
  button.type = "button";
  button.className = "choice";
  button.dataset.file = file;
  badge.textContent = i + 1;
  label.append(badge);
  label.setAttribute("aria-hidden", "true");
  button.setAttribute("aria-label", `Version ${i + 1}`);
  button.append(label, picture(file, ""));
  button.addEventListener("click", () => choose(i));
  return button;
}

function mark() {
  const step = steps[at];
  for (const button of $("choices").children) {
    button.setAttribute("aria-pressed", String(button.dataset.file === answered(step)));
  }
  const given = steps.filter(answered).length;
  $("progress").max = steps.length;
  $("progress").value = given;
  $("back").disabled = at === 0;
  $("next").setAttribute("aria-disabled", String(!answered(step)));
  $("next").textContent = at === steps.length - 1 ? "Finish" : "Next";
}

function choose(i) {
  const step = steps[at];
  const file = step.item.choices[i];
  if (leaving || file === undefined || file === answered(step)) return;
  step.item.answers[step.question.key] = file;
  mark();
  $("spoken").textContent = `Version ${i + 1} chosen`;
  // one after the other, so that the last choice is also the last to arrive
  const rater = study.rater.id; // the cookie may be another person's by now, from another tab: the server compares
  const sent = sending.then(() => send(rater, step, file));
  sending = sent;
  sent.then((kept) => {
    if (!kept && sending === sent) sending = Promise.resolve(true); // whoever waited knows; the next answer starts anew
  });
}

async function send(rater, step, file) {
  const { item, question } = step;
  try {
    await ask("/api/vote", { rater, source: item.source, question: question.key, choice: file });
    item.kept[question.key] = file;
    say();
    return true;
  } catch (error) {
    item.answers = { ...item.kept };
    if (error instanceof Refused && error.status === 401) begin({ ...study, rater: null });
    else if (!$("study").hidden) go(steps.indexOf(step));
    say(error);
    return false;
  }
}

async function next() {
  if (leaving) return;
  if (!answered(steps[at])) {
    $("spoken").textContent = "Choose a version first";
    return;
  }
  leaving = true;
  const kept = await sending;
  leaving = false;
  if (kept) go(at + 1);
}

function back() {
  if (!leaving) go(at - 1);
}

// ---------------------------------------------------------------------------------------------------- events

function onKey(event) {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || $("study").hidden) return;
  const digit = /^[1-9]$/.test(event.key) ? Number(event.key) : 0;
  const onButton = document.activeElement instanceof HTMLButtonElement ? document.activeElement : null;
  // Enter on a button that is not the chosen version is that button's own business
  const forward = event.key === "ArrowRight" ||
    (event.key === "Enter" && (!onButton || onButton.getAttribute("aria-pressed") === "true"));
  if (!digit && !forward && event.key !== "ArrowLeft") return;
  event.preventDefault();
  if (event.repeat) return; // a key that is held down answers once
  if (digit) choose(digit - 1);
  else if (forward) next();
  else back();
}

$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  enter(false);
});
$("resume").addEventListener("click", () => enter(true));
$("other").addEventListener("click", () => {
  $("taken").hidden = true;
  $("enter").hidden = false;
  $("name").select();
});
$("back").addEventListener("click", back);
$("next").addEventListener("click", next);
$("review").addEventListener("click", () => go(0));
$("leave").addEventListener("click", async () => {
  try {
    $("name").value = "";
    begin(await ask("/api/leave", { rater: study.rater.id }));
    say();
  } catch (error) {
    say(error);
  }
});
document.addEventListener("keydown", onKey);

ask("/api/study").then(begin, (error) => {
  say(error);
  setTimeout(() => window.location.reload(), 5000);
});
