import torch,pytest
from hubedit.model.tail import Tail
from hubedit.model.hooks import run
from hubedit.model.tokens import pad
from tests.pico import FAMILIES
@pytest.mark.parametrize("family",FAMILIES)
def test_tail(family,editable):
    em=editable(family)
    g=torch.Generator().manual_seed(0)
    rows=[tuple(torch.randint(5,200,(n,),generator=g).tolist()) for n in (5,9,12,3)]
    cuts=[2,7,3,0]
    for layer in range(em.num_layers):
        full=run(em,pad(rows,em.pad_id),hidden=[layer,em.num_layers-1])
        t=Tail.of(em,layer,rows,cuts)
        out=t.run(em,t.hidden)
        sel=t.select([1,3]); out2=sel.run(em,sel.hidden)
        for i,(r,c) in enumerate(zip(rows,cuts)):
            n=len(r)-c
            d=(out[i,:n]-full.hidden[em.num_layers-1][i,c:len(r)]).abs().max()
            assert d<1e-4,(family,layer,i,d)
        n=len(rows[1])-cuts[1]
        assert (out2[0,:n]-out[1,:n]).abs().max()<1e-5
        h=t.hidden.clone().requires_grad_(); t.run(em,h).sum().backward(); assert h.grad.abs().sum()>0
