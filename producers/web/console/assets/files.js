// A file of recipients, as far as a look at its beginning tells: which columns it has, what its first row says.

const LOOK = 65_536; // bytes that are read here; the whole is read by the server alone
export const FEW = 131_072; // bytes that a dry run gets while somebody types

export function cells(line) {
  const found = [];
  let cell = '', quoted = false;
  for (let at = 0; at < line.length; at += 1) {
    const sign = line[at];
    if (quoted && sign === '"' && line[at + 1] === '"') { cell += '"'; at += 1; } else if (sign === '"') quoted = !quoted;
    else if (sign === ',' && !quoted) { found.push(cell); cell = ''; } else cell += sign;
  }
  return [...found, cell].map((one) => one.trim());
}

export async function looked(file) {
  const text = (await file.slice(0, LOOK).text()).replace(/^\uFEFF/, '');
  const lines = text.split(/\r?\n/).filter((line) => line.trim());
  if (lines[0]?.trim().startsWith('{')) {
    const first = JSON.parse(lines[0]);
    return {file, columns: Object.keys(first), first, media: 'application/x-ndjson'};
  }
  const heads = cells(lines[0] ?? '');
  const named = heads.includes('openid');
  const values = cells(lines[1] ?? '');
  return {
    file,
    columns: named ? heads : [],
    first: named ? Object.fromEntries(heads.map((head, place) => [head, values[place] ?? ''])) : {},
    media: named || heads.length > 1 ? 'text/csv' : 'text/plain',
  };
}

// its beginning, up to the end of a row
export async function beginning(file) {
  if (file.size <= FEW) return file;
  const text = new Uint8Array(await file.slice(0, FEW).arrayBuffer());
  return file.slice(0, text.lastIndexOf(10) + 1);
}

export function filled(text, row) {
  return text.replace(/\{\{|\}\}|\{([^{}|]*)(\|[^{}]*)?\}/g, (found, column) => (found === '{{' ? '{' : found === '}}' ? '}' : row[column] ?? found));
}

export const nameOf = (file) => file.name.replace(/\.[^.]*$/, '').replace(/[^A-Za-z0-9_.-]+/g, '-').replace(/^[^A-Za-z0-9]+/, '').slice(0, 64);
