/** Where the audio of a call comes from. */
export interface AudioSource {
  stream: MediaStream;
  stop(): void;
}

/** Opens the microphone, or a quiet 440 Hz tone in its stead. */
export async function openAudio(kind: 'microphone' | 'tone'): Promise<AudioSource> {
  return kind === 'tone' ? openTone() : openMicrophone();
}

async function openMicrophone(): Promise<AudioSource> {
  const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
  return { stream, stop: () => stream.getTracks().forEach((track) => track.stop()) };
}

async function openTone(): Promise<AudioSource> {
  const context = new AudioContext();
  await context.resume();
  const oscillator = new OscillatorNode(context, { frequency: 440 });
  const quiet = new GainNode(context, { gain: 0.1 });
  const destination = context.createMediaStreamDestination();
  oscillator.connect(quiet).connect(destination);
  oscillator.start();
  return { stream: destination.stream, stop: () => void context.close() };
}
