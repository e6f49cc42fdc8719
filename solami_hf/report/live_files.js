/* An answer as files: sound as wav, joints as npz (a zip without compression of npy arrays). */

function wavFile(samples, rate) {
  const bytes = new ArrayBuffer(44 + 2 * samples.length), view = new DataView(bytes);
  const letters = (place, text) => [...text].forEach((letter, i) => view.setUint8(place + i, letter.charCodeAt(0)));
  letters(0, "RIFF");
  view.setUint32(4, bytes.byteLength - 8, true);
  letters(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // mono
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  letters(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((value, i) => view.setInt16(44 + 2 * i, value, true));
  return new Blob([bytes], { type: "audio/wav" });
}

/* values: Float32Array or Float64Array, shape: list of numbers. */
function npyBytes(values, shape) {
  const type = values instanceof Float64Array ? "<f8" : "<f4", tuple = `(${shape.join(", ")}${shape.length === 1 ? "," : ""})`;
  const told = `{'descr': '${type}', 'fortran_order': False, 'shape': ${tuple}, }`;
  const header = told.padEnd(Math.ceil((told.length + 11) / 64) * 64 - 11) + "\n"; // 10 bytes stand before it
  const bytes = new Uint8Array(10 + header.length + values.byteLength);
  bytes.set([0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, header.length & 255, header.length >> 8]);
  bytes.set(new TextEncoder().encode(header), 10);
  bytes.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), 10 + header.length);
  return bytes;
}

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

/* arrays: {name: npy bytes}. */
function npzFile(arrays) {
  const parts = [], directory = [];
  let place = 0;
  for (const [name, bytes] of Object.entries(arrays)) {
    const title = new TextEncoder().encode(`${name}.npy`), crc = crc32(bytes);
    const head = (central) => {
      const view = new DataView(new ArrayBuffer(central ? 46 : 30));
      view.setUint32(0, central ? 0x02014b50 : 0x04034b50, true);
      if (central) view.setUint16(4, 20, true); // made by version 2.0
      const at = central ? 6 : 4;
      view.setUint16(at, 20, true);
      view.setUint16(at + 8, 0x21, true); // 1 January 1980
      view.setUint32(at + 10, crc, true);
      view.setUint32(at + 14, bytes.length, true);
      view.setUint32(at + 18, bytes.length, true);
      view.setUint16(at + 22, title.length, true);
      if (central) view.setUint32(42, place, true);
      return view.buffer;
    };
    directory.push(head(true), title);
    parts.push(head(false), title, bytes);
    place += 30 + title.length + bytes.length;
  }
  const size = directory.reduce((sum, part) => sum + part.byteLength, 0), count = Object.keys(arrays).length;
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, count, true);
  end.setUint16(10, count, true);
  end.setUint32(12, size, true);
  end.setUint32(16, place, true);
  return new Blob([...parts, ...directory, end.buffer], { type: "application/zip" });
}

function saveFile(blob, name) {
  const link = element("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
