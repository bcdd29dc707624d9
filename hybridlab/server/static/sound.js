// Sounds on their way to the server. It reads films, too, but those, and what the microphone gave,
// become a 16 kHz mono WAV here: no picture need be sent.

const RATE_HZ = 16000;
const SOUND = /\.(wav|flac|ogg|oga|opus|mp3|mpga|m4a|aac|amr|wma|mka|caf|aiff?|au)$/i;

/** The file itself where it is all sound, or of a kind that this browser does not know, else WAV. */
export async function readable(file) {
  if (SOUND.test(file.name)) return file;
  try {
    return new File([await toWav(file)], "sound.wav");
  } catch {
    return file;
  }
}

/** Any sound that this browser can decode as 16-bit mono WAV. */
export async function toWav(blob) {
  const context = new OfflineAudioContext(1, 1, RATE_HZ); // decoding resamples to its rate
  let sound;
  try {
    sound = await context.decodeAudioData(await blob.arrayBuffer());
  } catch {
    throw new Error("This browser cannot decode the file as sound; send WAV, FLAC, MP3 or OGG.");
  }
  return wav(mono(sound));
}

function mono(sound) {
  const mixed = new Float32Array(sound.length);
  for (let channel = 0; channel < sound.numberOfChannels; channel++) {
    const samples = sound.getChannelData(channel);
    for (let i = 0; i < mixed.length; i++) mixed[i] += samples[i] / sound.numberOfChannels;
  }
  return mixed;
}

function wav(samples) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // bytes of the format that follows
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, RATE_HZ, true);
  view.setUint32(28, 2 * RATE_HZ, true); // bytes a second
  view.setUint16(32, 2, true); // bytes a frame
  view.setUint16(34, 16, true); // bits a sample
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((x, i) => view.setInt16(44 + 2 * i, Math.max(-1, Math.min(1, x)) * 32767, true));
  return new Blob([view], { type: "audio/wav" });
}

/** Record until `stop()`, which gives a WAV file. */
export async function record() {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  const recorder = new MediaRecorder(stream);
  const parts = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  recorder.start();
  return {
    async stop() {
      const stopped = new Promise((done) => (recorder.onstop = done));
      recorder.stop();
      stream.getTracks().forEach((track) => track.stop());
      await stopped;
      return new File([await toWav(new Blob(parts, { type: recorder.mimeType }))], "recording.wav");
    },
  };
}

/** Why this page cannot record; "" where it can. */
export function whyNoMicrophone() {
  if (!window.isSecureContext) return "Browsers record only on localhost or over HTTPS.";
  return navigator.mediaDevices && window.MediaRecorder ? "" : "This browser cannot record.";
}
