/* `npm start`: installs what is missing, builds what has changed and runs a node in this process. Flags are the node's. */
import { build, checkNode, fail, install, root } from './install.js';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

checkNode();
install();
if (!build('apps/node', 'apps/verify')) fail('The build failed; its messages are above.');
const { run } = await import(pathToFileURL(join(root, 'apps/node/dist/cli/index.js')).href);
await run(['start', ...process.argv.slice(2)]);
