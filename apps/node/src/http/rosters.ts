import { Rosters } from '@waggle/runtime';
import type { App, Deps } from './app.ts';
import type { Guards } from './authenticate.ts';
import { sendLines } from './lines.ts';
import { readingIn } from './reads.ts';
import { content, responses } from './schemas.ts';
import { isUnchanged } from './sealed.ts';

/** The chain of rosters: from the genesis to whoever votes now, for whoever checks a statement offline. */
export function rosterRoutes(app: App, { node, reads }: Deps, guards: Guards): void {
  const isPublic = node.config.publicLog;
  const rosters = new Rosters(node.store);

  app.get(
    '/v1/rosters.jsonl',
    {
      onRequest: [guards.log, readingIn(reads)],
      schema: {
        tags: ['Auditor'],
        security: isPublic ? [{}, { token: [] }] : [{ token: [] }],
        operationId: 'getRosters',
        summary: 'The chain of rosters: each sealed epoch that decided another roster, with what proves it',
        description: 'With the genesis it shows who had to sign each epoch (`waggle-verify --rosters`).',
        response: responses({ 200: content('One change a line.', 'application/jsonl') }, 'QUEUE_FULL'),
      },
    },
    async (request, reply) => {
      const { tag, lines } = await rosters.read();
      if (isUnchanged(request, reply, { etag: `"rosters-${tag}"`, isPublic, mayChange: true })) return reply.send();
      return sendLines(reply, 'application/jsonl', lines);
    },
  );
}
