// Cosines of vectors, and their first two principal components.

const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);
const length = (vector) => Math.sqrt(dot(vector, vector));

/** The cosine of each pair of vectors; 0 if one of them is zero. */
export function cosines(vectors) {
  const lengths = vectors.map(length);
  return vectors.map((a, i) => vectors.map((b, j) => (lengths[i] && lengths[j] ? dot(a, b) / lengths[i] / lengths[j] : 0)));
}

/**
 * Coordinates of each vector on the first two principal components, and the shares of the variance.
 *
 * By the eigenvectors of the Gram matrix of the centred vectors (Jacobi's rotations): there are far
 * fewer texts than dimensions. The sign of a component has no meaning; the first text is on its
 * positive side.
 */
export function principalComponents(vectors) {
  const size = vectors.length;
  const mean = vectors[0].map((_, d) => vectors.reduce((sum, vector) => sum + vector[d], 0) / size);
  const centred = vectors.map((vector) => vector.map((value, d) => value - mean[d]));
  const gram = centred.map((a) => centred.map((b) => dot(a, b)));
  const total = gram.reduce((sum, row, i) => sum + row[i], 0);
  const { values, columns } = eigen(gram);
  const best = values.map((_, i) => i).toSorted((a, b) => values[b] - values[a]).slice(0, 2);
  const axes = best.map((i) => {
    const scale = Math.sqrt(Math.max(0, values[i])) * (columns[i][0] < 0 ? -1 : 1);
    return columns[i].map((value) => value * scale);
  });
  return {
    points: vectors.map((_, i) => axes.map((axis) => axis[i])),
    shares: best.map((i) => (total ? Math.max(0, values[i]) / total : 0)),
  };
}

/** Eigenvalues and eigenvectors of a symmetric matrix. */
function eigen(matrix) {
  const a = matrix.map((row) => [...row]);
  const size = a.length;
  const columns = a.map((_, i) => a.map((_, j) => Number(i === j)));
  const scale = Math.max(...a.map((row, i) => Math.abs(row[i])), Number.MIN_VALUE);
  for (let sweep = 0; sweep < 50; sweep++) {
    let rest = 0;
    for (let p = 0; p < size; p++) {
      for (let q = p + 1; q < size; q++) {
        rest = Math.max(rest, Math.abs(a[p][q]));
        if (a[p][q] !== 0) rotate(a, columns, p, q);
      }
    }
    if (rest < 1e-12 * scale) break;
  }
  return { values: a.map((row, i) => row[i]), columns };
}

/** Makes a[p][q] zero by a rotation. */
function rotate(a, columns, p, q) {
  const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
  const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
  const c = 1 / Math.hypot(t, 1);
  const s = t * c;
  for (const row of a) [row[p], row[q]] = [c * row[p] - s * row[q], s * row[p] + c * row[q]];
  for (const rows of [a, columns]) {
    const [first, second] = [rows[p], rows[q]];
    rows[p] = first.map((value, i) => c * value - s * second[i]);
    rows[q] = first.map((value, i) => s * value + c * second[i]);
  }
}
