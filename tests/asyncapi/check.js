// Reads an AsyncAPI document with the AsyncAPI project's own parser, and says what it
// finds. It ends with 1 if anything of it is an error or a warning.
//
//   node check.js docs/asyncapi.yaml
import {readFileSync} from 'node:fs';
import {dirname, resolve} from 'node:path';
import {Parser} from '@asyncapi/parser';
import Ajv from 'ajv/dist/2020.js';
import formats from 'ajv-formats';

// What the parser may say without anything being wrong.
const permitted = new Set(['asyncapi-latest-version']);

const file = resolve(process.argv[2]);
process.chdir(dirname(file));
const {document, diagnostics} = await new Parser().parse(readFileSync(file, 'utf8'), {source: file});
const problems = diagnostics.filter((d) => !permitted.has(d.code) && d.severity <= 1);
for (const d of problems) {
  console.error(`${d.path.join('.')}: ${d.message} (${d.code})`);
}
if (!document || problems.length > 0) {
  process.exit(1);
}
// The parser does not look at the examples of version 3.
let examples = 0;
for (const message of document.components().messages().all()) {
  const ajv = new Ajv({strict: false, allErrors: true});
  formats(ajv);
  const fits = ajv.compile(message.payload().json());
  for (const example of message.examples().all()) {
    examples++;
    if (!fits(example.payload())) {
      console.error(`${message.name()}: the example ${example.name()} does not fit: ${ajv.errorsText(fits.errors)}`);
      process.exitCode = 1;
    }
  }
}
if (process.exitCode) {
  process.exit();
}
console.log(`asyncapi: ${document.channels().all().length} channels, ` +
  `${document.components().messages().all().length} messages, ${examples} examples, nothing wrong`);
