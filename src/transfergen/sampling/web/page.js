// Draws the image of the latent that the form describes: one between two seeds, moved along directions.

const element = (id) => document.getElementById(id);
const say = (words) => { element("status").textContent = words; };
const form = document.querySelector("form");
const canvas = document.querySelector("canvas");
const { width, height } = canvas;
const { z_dim: zDim, channels, directions } = JSON.parse(element("settings").textContent);

/** 32 random bits a call, as torch.Generator draws them. MT19937, Matsumoto and Nishimura 1998. */
function mersenneTwister(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) {
    state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  }
  let next = 624;
  return () => {
    if (next === 624) {
      for (let i = 0; i < 624; i++) {
        const bits = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
        state[i] = state[(i + 397) % 624] ^ (bits >>> 1) ^ (bits & 1 ? 0x9908b0df : 0);
      }
      next = 0;
    }
    let bits = state[next++];
    bits ^= bits >>> 11;
    bits ^= (bits << 7) & 0x9d2c5680;
    bits ^= (bits << 15) & 0xefc60000;
    return (bits ^ (bits >>> 18)) >>> 0;
  };
}

/** The latent of a seed: torch.randn(size, generator=torch.Generator().manual_seed(seed)) on a CPU, to rounding. */
function randn(seed, size) {
  const random = mersenneTwister(seed);
  const boxMuller = (u, v) => { // two uniform numbers in [0, 1) -> two normal ones
    const radius = Math.sqrt(-2 * Math.log(1 - u));
    return [radius * Math.cos(2 * Math.PI * v), radius * Math.sin(2 * Math.PI * v)];
  };
  if (size < 16) {
    const uniform = () => ((random() % 2 ** 21) * 2 ** 32 + random()) / 2 ** 53;
    const pairs = Array.from({ length: Math.ceil(size / 2) }, () => {
      const v = uniform();
      return boxMuller(uniform(), v);
    });
    return pairs.flat().slice(0, size);
  }
  const uniform = () => (random() % 2 ** 24) / 2 ** 24;
  const z = Array.from({ length: size }, uniform);
  const fill = (start) => {
    for (let i = start; i < start + 8; i++) [z[i], z[i + 8]] = boxMuller(z[i], z[i + 8]);
  };
  for (let start = 0; start + 16 <= size; start += 16) fill(start);
  if (size % 16) { // the last 16 are drawn again
    for (let i = size - 16; i < size; i++) z[i] = uniform();
    fill(size - 16);
  }
  return z;
}

/** Spherical interpolation from latent a to b, at a fraction in [0, 1]. */
function slerp(a, b, fraction) {
  const dot = (u, v) => u.reduce((sum, value, i) => sum + value * v[i], 0);
  const cosine = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  const sine = Math.sin(angle);
  const [left, right] = sine < 1e-4
    ? [1 - fraction, fraction]
    : [Math.sin((1 - fraction) * angle) / sine, Math.sin(fraction * angle) / sine];
  return a.map((value, i) => left * value + right * b[i]);
}

/** The bytes that a script element holds: base64 of gzip. */
async function unpack(id) {
  const bytes = Uint8Array.from(atob(element(id).textContent), (character) => character.charCodeAt(0));
  const content = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(content).arrayBuffer());
}

/** A model whose low bytes and high bytes were laid apart, as they compress better. */
function joinBytes(apart) {
  const half = Math.ceil(apart.length / 2);
  return apart.map((_, i) => apart[(i >> 1) + (i % 2) * half]);
}

async function start() {
  const script = URL.createObjectURL(new Blob([await unpack("runtime")], { type: "text/javascript" }));
  const ort = await import(script);
  ort.env.wasm.numThreads = 1; // threads need a server that sends headers
  ort.env.wasm.wasmBinary = await unpack("wasm");
  const session = await ort.InferenceSession.create(joinBytes(await unpack("model")));

  async function draw() {
    if (!form.checkValidity()) {
      say("A seed is a whole number from 0 to 4294967295.");
      return;
    }
    const given = new FormData(form);
    const moves = given.getAll("direction").map(Number);
    const between = slerp(randn(+given.get("seed"), zDim), randn(+given.get("towards"), zDim), +given.get("part"));
    const z = between.map((value, i) => moves.reduce((sum, move, k) => sum + move * directions[k][i], value));
    const feeds = { z: new ort.Tensor("float32", z, [1, zDim]) };
    if (given.has("class")) feeds.y = new ort.Tensor("int64", [BigInt(given.get("class"))], [1]);
    const before = performance.now();
    const { images } = await session.run(feeds);
    const image = new ImageData(width, height);
    const level = (channel, i) => (images.data[channel * width * height + i] + 1) * 127.5;
    for (let i = 0; i < width * height; i++) {
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = level(channels === 1 ? 0 : c, i);
      image.data[4 * i + 3] = channels === 4 ? level(3, i) : 255;
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    canvas.setAttribute("aria-label", new URLSearchParams(given));
    element("download").href = canvas.toDataURL();
    element("download").download = `seed${given.get("seed")}.png`;
    say(`${Math.round(performance.now() - before)} ms an image`);
  }

  let stale = false;
  let drawing = false;
  async function update() {
    stale = true;
    if (drawing) return;
    drawing = true;
    try {
      while (stale) {
        stale = false;
        await draw();
      }
    } catch (error) {
      say(error);
    }
    drawing = false;
  }
  form.addEventListener("input", update);
  form.addEventListener("reset", () => setTimeout(update)); // when the form has its first values again
  form.addEventListener("submit", (event) => event.preventDefault());
  element("another").addEventListener("click", () => {
    form.elements.seed.value = Math.floor(Math.random() * 1e6);
    update();
  });
  await update();
}

start().catch(say);
