import { type ConnectOpts, Socket, type SocketConstructorOpts } from 'node:net';
import { estimateCpuMicros } from './estimate.ts';
import { failureOf } from './failures.ts';
import { planPicture, type SourceHeader } from './geometry.ts';
import { checkResult, checkSource } from './limits.ts';
import { FrameReader, frameHead, type JobReport, type JobRequest, type WorkerMessage } from './messages.ts';
import { makePicture, makeProbe, readHeader, setUpSharp } from './picture.ts';

/*
 * The worker process: one picture at a time, over the socket that its parent left at file descriptor 3. It holds
 * nothing between jobs and may be killed at any moment.
 */

const PARENT_FD = 3;

/** What a socket pair holds on Linux by default (net.core.wmem_default), and so the most that one read gives. */
const READ_BYTES = 208 * 1024;

function cpuTotalMicros(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

type Done = Omit<JobReport, 'cpuMicros'> & { picture?: Buffer };

async function carryOut(request: JobRequest, body: Buffer): Promise<Done> {
  const { op, plan, limits, budgetMs } = request;
  let input: SourceHeader | undefined;
  let pixelsIn = 0;
  try {
    if (op === 'probe') {
      await makeProbe();
      return { pixelsIn, pixelsOut: 0 };
    }
    input = await readHeader(body);
    const planned = planPicture(plan, input);
    const estimateMicros = estimateCpuMicros(plan, input);
    if (op === 'inspect') return { input, output: { ...planned, bytes: 0 }, estimateMicros, pixelsIn, pixelsOut: 0 };
    checkSource(input, planned.frames, limits);
    checkResult(planned, plan, limits, estimateMicros, budgetMs);
    pixelsIn = input.width * input.height * planned.frames;
    const { picture, ...made } = await makePicture(body, input, plan, limits.inputPixelsMax);
    const pixelsOut = made.width * made.height * made.frames;
    return { input, output: { ...made, bytes: picture.length }, estimateMicros, pixelsIn, pixelsOut, picture };
  } catch (cause) {
    const { code, message } = failureOf(cause);
    return { error: { code, message }, ...(input === undefined ? {} : { input }), pixelsIn, pixelsOut: 0 };
  }
}

async function main(): Promise<void> {
  // An interrupt at the terminal reaches the whole group: the parent decides when its workers end.
  process.on('SIGINT', () => {});
  process.on('SIGTERM', () => {});
  setUpSharp();
  await makeProbe();

  const reader = new FrameReader<JobRequest>((request, body) => void run(request, body));
  const options: SocketConstructorOpts & ConnectOpts = {
    fd: PARENT_FD,
    readable: true,
    writable: true,
    // One buffer for all reads: a fresh one each would cost more than the copying.
    onread: {
      buffer: Buffer.alloc(READ_BYTES),
      callback: (length, buffer) => {
        reader.push(Buffer.from(buffer.buffer, buffer.byteOffset, length));
        return true;
      },
    },
  };
  const parent = new Socket(options);
  const send = (message: WorkerMessage, body?: Buffer): void => {
    parent.cork();
    parent.write(frameHead(message, body?.length ?? 0));
    if (body !== undefined) parent.write(body);
    parent.uncork();
  };
  const run = async (request: JobRequest, body: Buffer): Promise<void> => {
    const before = cpuTotalMicros();
    const { picture, ...report } = await carryOut(request, body);
    const after = cpuTotalMicros();
    send(
      {
        type: 'done',
        cpuTotalMicros: after,
        rssBytes: process.memoryUsage.rss(),
        ...report,
        cpuMicros: after - before,
      },
      picture,
    );
  };
  // A kill, since `exit` would wait for native code that is at work. The parent is gone, or wants this.
  const end = (): void => void process.kill(process.pid, 'SIGKILL');
  parent.on('end', end);
  parent.on('error', end);
  send({ type: 'ready', cpuTotalMicros: cpuTotalMicros() });
}

await main();
