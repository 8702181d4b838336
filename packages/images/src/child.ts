import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { FrameReader, frameHead, parseWorkerMessage, type JobRequest, type WorkerMessage } from './messages.ts';

/** The built worker: the same file whether this runs from `src` or from `dist`. */
const WORKER = fileURLToPath(new URL('../dist/worker.js', import.meta.url));

/** One thread for libvips, one allocator arena (148 MB come down to 93 after 2 000 pictures), no temporary files. */
const ENVIRONMENT = { UV_THREADPOOL_SIZE: '1', MALLOC_ARENA_MAX: '1', VIPS_DISC_THRESHOLD: '1000g' };

/** USER_HZ, the unit of /proc/<pid>/stat: 100 on every platform that Node runs on (proc_pid_stat(5)). */
const CLOCK_TICKS_PER_SECOND = 100;

/** How much of a worker's last words is kept, in characters. */
const STDERR_LENGTH_MAX = 2_000;

/** `[[dd-]hh:]mm:ss[.cc]`, as ps prints CPU time, in µs. */
export function parseCpuTime(text: string): number {
  const [time = '', days = '0'] = text.trim().split('-').reverse();
  const seconds = time.split(':').reduce((total, part) => total * 60 + Number(part), 0);
  return Math.round((Number(days) * 86_400 + seconds) * 1e6) || 0;
}

/** CPU time of a process since it started, in µs; undefined if it cannot be told. Works for a process that ended but is not reaped. */
function cpuTotalMicros(pid: number): number | undefined {
  try {
    if (process.platform !== 'linux')
      return parseCpuTime(execFileSync('ps', ['-o', 'time=', '-p', String(pid)], { encoding: 'utf8' }));
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name in parentheses may hold anything; utime and stime are the 12th and 13th field after it.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return ((Number(fields[11]) + Number(fields[12])) * 1e6) / CLOCK_TICKS_PER_SECOND;
  } catch {
    return undefined;
  }
}

/** What a child tells its pool. `onExit` comes exactly once and last. */
export interface ChildEvents {
  onMessage(message: WorkerMessage, body: Buffer): void;
  onExit(how: string, stderr: string): void;
}

/** The parent's side of one worker process. */
export class Child {
  readonly #process: ChildProcess;
  readonly #socket: Socket | undefined;
  /** CPU time of the process when it last reported, in µs: where the current job begins. */
  #cpuReportedMicros = 0;
  /** The last reading of a process that is about to disappear. */
  #cpuLastMicros: number | undefined;
  #stderr = '';
  #exited = false;

  /** Starts a process whose data segment (heap and anonymous mappings) is at most `memoryBytesMax` on Linux. */
  constructor(memoryBytesMax: number, events: ChildEvents) {
    const limit = `ulimit -d ${Math.floor(memoryBytesMax / 1024)}; exec "$0" "$@"`;
    const command =
      process.platform === 'linux' ? ['/bin/sh', '-c', limit, process.execPath, WORKER] : [process.execPath, WORKER];
    this.#process = spawn(command[0]!, command.slice(1), {
      stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
      env: ENVIRONMENT,
    });
    const exit = (how: string): void => {
      if (this.#exited) return;
      this.#exited = true;
      events.onExit(how, this.#stderr);
    };
    this.#process.on('error', (error) => exit(error.message));
    this.#process.on('close', (code, signal) => exit(signal ?? `exit code ${code}`));
    this.#process.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-STDERR_LENGTH_MAX);
    });
    // Where no descriptor is left, spawn gives up before it makes any of them; 'error' follows.
    const { stdio } = this.#process as { readonly stdio?: ChildProcess['stdio'] };
    this.#socket = (stdio?.[3] as Socket | null | undefined) ?? undefined;
    let arrived: { readonly message: WorkerMessage; readonly body: Buffer }[] = [];
    const reader = new FrameReader<unknown>((message, body) => {
      arrived.push({ message: parseWorkerMessage(message), body });
    });
    this.#socket?.on('data', (chunk: Buffer) => {
      try {
        reader.push(chunk);
      } catch {
        // A process that a picture has taken over may say anything; it ends as one that crashed.
        arrived = [];
        this.#readCpu();
        this.#process.kill('SIGKILL');
      }
      for (const { message, body } of arrived.splice(0)) {
        this.#cpuReportedMicros = message.cpuTotalMicros;
        // What was said about earlier jobs must not explain the end of a later one.
        this.#stderr = '';
        events.onMessage(message, body);
      }
    });
    // The socket closes before the process is reaped: the last moment to read its time.
    this.#socket?.on('end', () => this.#readCpu());
    this.#socket?.on('error', () => this.#readCpu());
  }

  /** 0 if the process could not be started. */
  get pid(): number {
    return this.#process.pid ?? 0;
  }

  /** One job at a time. The body must stay as it is until the answer. */
  send(request: JobRequest, body: Uint8Array): void {
    const socket = this.#socket;
    if (socket === undefined) return;
    socket.cork();
    socket.write(frameHead(request, body.length));
    socket.write(body);
    socket.uncork();
  }

  #readCpu(): void {
    this.#cpuLastMicros = (this.pid === 0 ? undefined : cpuTotalMicros(this.pid)) ?? this.#cpuLastMicros;
  }

  /** CPU time in µs since the last report (a clock tick of 10 ms at best); 0 if it cannot be told. Good after `onExit`, too. */
  cpuSinceReportMicros(): number {
    if (!this.#exited) this.#readCpu();
    return Math.max(0, (this.#cpuLastMicros ?? 0) - this.#cpuReportedMicros);
  }

  /** Ends the process at once, whatever it does. */
  kill(): void {
    this.#process.kill('SIGKILL');
    this.#socket?.destroy();
  }
}
